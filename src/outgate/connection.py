"""How a command finds a running Outgate: the data directory's `dev.json`, and calls over its HTTP API.

Standards: the laptop mode's contract (`dev.json`); standard library only.
Promises: an error says what could not be reached or read and what to do; no token is ever printed.
Not here: the commands themselves (`cli`), the server (`app`).
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, cast

# Whatever proxy the user's environment names: a call to this machine and its token stay on it.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NotReachable(Exception):
    """The service could not be found or asked; the text says cause and remedy."""


class Refusal(Exception):
    """The service answered, but not with success. `status` is the HTTP status, `body` what it said."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"HTTP {status}: {body[:500]}")
        self.status = status
        self.body = body


def default_data() -> Path:
    """Return where the laptop mode keeps its state: $OUTGATE_DATA, else under the XDG state directory."""
    named = os.environ.get("OUTGATE_DATA")
    if named:
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "outgate" / "dev"


def read_dev_json(data: Path) -> dict[str, Any]:
    """Return what `outgate dev` wrote into `data`. Raises `NotReachable`."""
    file = data / "dev.json"
    try:
        return cast("dict[str, Any]", json.loads(file.read_text("utf-8")))
    except FileNotFoundError:
        raise NotReachable(f"{file} is not there: start `outgate dev --data {data}` first") from None
    except (OSError, ValueError) as error:
        raise NotReachable(f"{file} cannot be read: {error}") from None


def client_id_of(token: str) -> str:
    """Return the `client_id` claim of a JWT, read without checking it; "" if there is none."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims.get("client_id", ""))
    except (IndexError, ValueError, AttributeError):
        return ""


class Api:
    """JSON calls with the token of a `dev.json`."""

    def __init__(self, dev: dict[str, Any]) -> None:
        self.dev = dev
        self.client_id = client_id_of(str(dev["token"]))
        self._headers = {
            "Authorization": f"Bearer {dev['token']}",
            "x-gw-ims-org-id": str(dev["org_id"]),
            "x-api-key": self.client_id,
            "Accept": "application/json",
        }

    def call(self, method: str, url: str, body: object = None) -> Any:
        """Send `body` as JSON; return the decoded answer (None if empty, text if not JSON).

        Raises `Refusal` for a status of 400 and above, `NotReachable` if nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        headers = dict(self._headers)
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - the URL is from dev.json
        try:
            with _DIRECT.open(request, timeout=60) as answer:
                text: str = answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            raise Refusal(error.code, error.read().decode("utf-8", "replace")) from None
        except OSError as error:
            raise NotReachable(f"{url} does not answer ({error}): is `outgate dev` running?") from None
        if not text:
            return None
        try:
            return json.loads(text)
        except ValueError:
            return text

    def messages(self, path: str = "") -> str:
        """Return the URL of the instance's messages, or of one of them."""
        base = f"{self.dev['event_notifications_url']}/v1/instances/{self.dev['instance_id']}/smtp/messages"
        return f"{base}/{path}" if path else base

    def configurations(self, path: str = "") -> str:
        """Return the URL of the instance's SMTP configurations, or what hangs under them."""
        base = f"{self.dev['event_notifications_url']}/v1/instances/{self.dev['instance_id']}/smtp/config"
        return f"{base}/{path}" if path else base

    def environment(self, path: str) -> str:
        """Return a Cloud Manager URL under the environment."""
        dev = self.dev
        return f"{dev['cloud_manager_url']}/api/program/{dev['program_id']}/environment/{dev['environment_id']}/{path}"

    def sandbox(self, path: str) -> str:
        """Return a URL of a sandbox call."""
        return f"{self.dev['sandbox_url']}/{path}"
