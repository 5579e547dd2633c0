"""How a command finds a running Outgate: the data directory's `dev.json`, and calls over its HTTP API.

Standards: the laptop mode's contract (`dev.json`); standard library only.
Promises: an error says what could not be reached or read and what to do; no token is ever printed.
Not here: the commands themselves (`cli`), the server (`app`).
"""

from __future__ import annotations

import json
import os
import shlex
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from outgate.cloud_manager import NotReachable, client_id_of

__all__ = ["Api", "NotReachable", "Refusal", "client_id_of", "default_data", "read_dev_json"]

# Whatever proxy the user's environment names: a call to this machine and its token stay on it.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_NEEDED = (
    "token",
    "org_id",
    "account_id",
    "instance_id",
    "event_notifications_url",
    "restrictions_url",
    "cloud_manager_url",
    "identity_url",
    "sandbox_url",
)


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
    again = f"start `outgate dev --data {shlex.quote(str(data))}`, which writes it"
    try:
        found: object = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise NotReachable(f"{file} is not there: {again}") from None
    except OSError as error:
        raise NotReachable(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise NotReachable(f"{file} cannot be read: {error}; {again}") from None
    missing = [key for key in _NEEDED if not isinstance(found, dict) or key not in found]
    if missing:
        raise NotReachable(f"{file} lacks {', '.join(missing)}: {again}")
    return cast("dict[str, Any]", found)


def _parts(request: urllib.request.Request) -> Iterator[bytes]:
    try:
        with _DIRECT.open(request, timeout=300) as answer:
            while part := answer.read(65_536):
                yield part
    except urllib.error.HTTPError as error:
        raise Refusal(error.code, error.read().decode("utf-8", "replace")) from None
    except (OSError, HTTPException, ValueError) as error:
        raise _silent(request.full_url, error) from None


def _silent(url: str, error: Exception) -> NotReachable:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    said = (isinstance(reason, OSError) and reason.strerror) or reason
    return NotReachable(f"{url.partition('?')[0]} does not answer ({said}): is `outgate dev` running?")


class Api:
    """JSON calls with the token of a `dev.json`; each step of one may take `timeout` seconds."""

    def __init__(self, dev: dict[str, Any], timeout: float = 60.0) -> None:
        self.dev = dev
        self._timeout = timeout
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
        return self.tagged(method, url, body)[0]

    def tagged(self, method: str, url: str, body: object = None, tag: str = "") -> tuple[Any, str]:
        """As `call`, on condition that what is there still has the entity tag `tag`, if that is given; return the
        answer's own tag too ("" if it has none)."""
        data = None if body is None else json.dumps(body).encode()
        headers = dict(self._headers)
        if data is not None:
            headers["Content-Type"] = "application/json"
        if tag:
            headers["If-Match"] = tag
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - the URL is from dev.json
        try:
            with _DIRECT.open(request, timeout=self._timeout) as answer:
                text: str = answer.read().decode("utf-8", "replace")
                found = str(answer.headers.get("ETag", ""))
        except urllib.error.HTTPError as error:
            raise Refusal(error.code, error.read().decode("utf-8", "replace")) from None
        except (OSError, HTTPException, ValueError) as error:
            raise _silent(url, error) from None
        if not text:
            return None, found
        try:
            return json.loads(text), found
        except ValueError:
            return text, found

    def sent_as(self, media: str, url: str, octets: bytes) -> Any:
        """Post octets of a media type; return the decoded answer. Raises as `call`."""
        headers = {**self._headers, "Content-Type": media}
        request = urllib.request.Request(url, octets, headers, method="POST")  # noqa: S310 - the URL is from dev.json
        return json.loads(b"".join(_parts(request)))

    def parts(self, url: str) -> Iterator[bytes]:
        """Give an answer of whatever length in parts. Raises as `call`, also on the way."""
        headers = {**self._headers, "Accept": "*/*"}
        return _parts(urllib.request.Request(url, headers=headers))  # noqa: S310 - the URL is from dev.json

    def suppressions(self, path: str = "", *, quoted: bool = True) -> str:
        """Return the URL of the instance's suppressed addresses, or of one of them; not `quoted`: what hangs there."""
        base = f"{self.dev['event_notifications_url']}/v1/instances/{self.dev['instance_id']}/smtp/suppressions"
        return f"{base}/{quote(path, safe='') if quoted else path}" if path else base

    def messages(self, queue_id: str = "") -> str:
        """Return the URL of the instance's messages, or of one of them; whatever a person typed stays one part."""
        base = f"{self.dev['event_notifications_url']}/v1/instances/{self.dev['instance_id']}/smtp/messages"
        return f"{base}/{quote(queue_id, safe='')}" if queue_id else base

    def configurations(self, path: str = "") -> str:
        """Return the URL of the instance's SMTP configurations, or what hangs under them."""
        base = f"{self.dev['event_notifications_url']}/v1/instances/{self.dev['instance_id']}/smtp/config"
        return f"{base}/{path}" if path else base

    def endpoints(self) -> str:
        """Return the URL of the endpoints."""
        return f"{self.dev['event_notifications_url']}/v1/endpoints"

    def mail_settings(self) -> str:
        """Return the URL of what the instance's mail may carry."""
        return f"{self.dev['event_notifications_url']}/v1/instances/{self.dev['instance_id']}/smtp/settings"

    def identity(self, path: str) -> str:
        """Return a URL of the identity API."""
        return f"{self.dev['identity_url']}/{path}"

    def restrictions(self, path: str) -> str:
        """Return a URL of the restrictions API."""
        return f"{self.dev['restrictions_url']}/{path}"

    def operations(self, path: str) -> str:
        """Return a URL of the operations API."""
        return f"{self.dev['operations_url']}/{path}"

    def environment(self, path: str) -> str:
        """Return a Cloud Manager URL under the environment."""
        dev = self.dev
        return f"{dev['cloud_manager_url']}/api/program/{dev['program_id']}/environment/{dev['environment_id']}/{path}"

    def sandbox(self, path: str) -> str:
        """Return a URL of a sandbox call."""
        return f"{self.dev['sandbox_url']}/{path}"
