"""Rule 3, the credential: is this name and password right, and what may its owner send for?

Standards: RFC 4954; keyed BLAKE2b (RFC 7693) for what is remembered.
Promises: the slow hash runs once per credential, process and quarter of an hour, in few threads with a bounded, fair
queue; logins that come together share one check; unknown names cost the same and read the same as wrong passwords:
two rows looked for, one hash; a change to a credential or key voids what is remembered of it; an API key of the
account with the role smtp is as good as the password; while a rotation overlaps, the former password is as good as
the new one, for sessions under way too.
Dangers: what is remembered is keyed with a random key and lives in memory only; a password is never kept or logged.
Whoever holds a working API key is told by time that it works, and by the reply too.
Not here: the reply (`relay.session`), who has failed too often (`relay.guessing`), the hash (`relay.passwords`).
"""

from __future__ import annotations

import functools
import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.model.tenancy import Credential, Sender
from outgate.relay.passwords import which
from outgate.relay.turns import Busy, Turns
from outgate.store.identity import ApiKey

_log = Log("outgate.credentials")
_REMEMBERED = 10_000
_REMEMBERED_S = 900.0
# User names have 20 signs, passwords 32, API keys 44: what is longer is nobody's, and not worth a digest of it.
_LONGEST = 256

Done = Callable[[Sender | None, Exception | None], None]

__all__ = ["Busy", "Credentials", "Keys", "Senders"]


class Senders(Protocol):
    """Where senders are found by user name (`store.tenancy`)."""

    def credential(self, username: str) -> tuple[Credential, str] | None: ...

    def sender(self, username: str) -> Sender | None: ...


class Keys(Protocol):
    """Where API keys are found by their text and by their id (`store.identity`)."""

    def find_api_key(self, clear: str) -> ApiKey | None: ...

    def api_key(self, key_id: str) -> ApiKey | None: ...


@dataclass(frozen=True, slots=True)
class _Proof:
    """What a login was right for: a verifier, or the API key of that id; good without a new check until then."""

    verifier: str
    key_id: str
    until: float


class Credentials:
    """Check logins, off the event loop, and remember the right ones for a while."""

    def __init__(self, senders: Senders, keys: Keys, clock: Clock, *, threads: int = 1, waiting: int = 200) -> None:
        self._senders = senders
        self._keys = keys
        self._clock = clock
        self._turns = Turns(threads, waiting, "argon2")
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(32)
        # By keyed digest: logins that were right, those that end first in front, and checks under way with who waits.
        self._known: dict[bytes, _Proof] = {}
        self._checking: dict[bytes, list[Done]] = {}
        self._current: dict[str, Sender | None] = {}
        self._current_keys: dict[str, ApiKey | None] = {}

    def remembered(self, username: str, password: str) -> Sender | None:
        """Return the sender if this very login was right of late and what it was right for still is, else None."""
        if len(username) + len(password) > _LONGEST:
            return None
        digest = self.digest(username, password)
        proof = self._known.get(digest)
        if proof is None:
            return None
        sender = None
        if self._clock.now() < proof.until:
            sender = self._with(self._stored(username), proof.verifier, proof.key_id)
        if sender is None:
            with self._lock:
                self._known.pop(digest, None)
        return sender

    def check(self, username: str, password: str, done: Done, *, source: str = "") -> None:
        """Verify a login in the pool and call `done` there with the sender, or None if it is wrong.

        `source` is where it comes from: turns are fair between sources. Raises `Busy` if too many wait."""
        if len(username) + len(password) > _LONGEST:
            username = password = ""
        digest = self.digest(username, password)
        with self._lock:
            waiting = self._checking.get(digest)
            if waiting is not None:
                waiting.append(done)
                return
            waiting = [done]
            self._turns.submit(source, functools.partial(self._check, username, password, digest, waiting))
            self._checking[digest] = waiting

    def current(self, sender: Sender) -> Sender | None:
        """Return what the store says now of a sender who logged in earlier, or None if that login is void.

        Reads the store once after each change, else memory."""
        credential = sender.credential
        return self._with(self._stored(credential.username), credential.verifier, sender.key_id)

    def forget(self, in_use: Iterable[Sender] = ()) -> None:
        """Read senders anew: something in the control store has changed. Blocks for those in use, read at once.

        A login stays known as long as its verifier is the same: else each change of anything would have every
        password hashed again."""
        senders: dict[str, Sender | None] = {}
        keys: dict[str, ApiKey | None] = {}
        for sender in in_use:
            name = sender.credential.username
            if name not in senders:
                senders[name] = self._senders.sender(name)
            if sender.key_id and sender.key_id not in keys:
                keys[sender.key_id] = self._keys.api_key(sender.key_id)
        self._current, self._current_keys = senders, keys
        with self._lock:  # who comes from now on does not join a check that may have read what was before
            self._checking = {}

    def close(self) -> None:
        """Stop the threads; waiting checks are dropped."""
        self._turns.close()

    def digest(self, username: str, password: str) -> bytes:
        """Return a keyed digest of a login: it says nothing without this process."""
        name = username.encode()
        return hashlib.blake2b(
            len(name).to_bytes(4, "big") + name + password.encode(), key=self._secret, digest_size=32
        ).digest()

    def _with(self, sender: Sender | None, verifier: str, key_id: str) -> Sender | None:
        """Return a sender with what the login was right for, if that is still good."""
        if sender is None:
            return None
        credential = sender.credential
        if key_id:
            key = self._stored_key(key_id)
            if key is None or not key.opens(sender.instance.account_id, sender.instance.id, self._clock.now()):
                return None
            return replace(sender, key_id=key_id)
        if verifier == credential.verifier:
            return sender
        if verifier in _good(credential, self._clock.now()):
            return replace(sender, credential=replace(credential, verifier=verifier))
        return None

    def _stored(self, username: str) -> Sender | None:
        """Read a sender from the store: once after each change, then from memory."""
        try:
            return self._current[username]
        except KeyError:
            found = self._current[username] = self._senders.sender(username)
            return found

    def _stored_key(self, key_id: str) -> ApiKey | None:
        try:
            return self._current_keys[key_id]
        except KeyError:
            found = self._current_keys[key_id] = self._keys.api_key(key_id)
            return found

    def _check(self, username: str, password: str, digest: bytes, waiting: list[Done]) -> None:
        sender, failed = None, None
        try:
            sender = self._verify(username, password)
        except Exception as error:
            _log.exception("credential.check")
            failed = error
        if sender is not None:
            proof = _Proof(sender.credential.verifier, sender.key_id, self._clock.now() + _REMEMBERED_S)
            with self._lock:
                self._known.pop(digest, None)
                if len(self._known) >= _REMEMBERED:
                    del self._known[next(iter(self._known))]
                self._known[digest] = proof
        self._checked(digest, waiting)
        for done in waiting:
            done(sender, failed)

    def _checked(self, digest: bytes, waiting: list[Done]) -> None:
        """Have nobody join this check any more."""
        with self._lock:
            if self._checking.get(digest) is waiting:
                del self._checking[digest]

    def _verify(self, username: str, password: str) -> Sender | None:
        # Each look-up is one row by an index, for names and texts that exist or not; the rest of a sender is read
        # once the login is right.
        found = self._senders.credential(username)
        key = self._keys.find_api_key(password)
        now = self._clock.now()
        if key is not None and found is not None and key.opens(found[1], found[0].instance_id, now):
            sender = self._senders.sender(username)
            return None if sender is None else replace(sender, key_id=key.id)
        verifier = which(password, () if found is None else _good(found[0], now))
        if verifier is None or found is None:
            return None
        return self._with(self._senders.sender(username), verifier, "")


def _good(credential: Credential, now: float) -> tuple[str, ...]:
    """Return the verifiers that are good now: the credential's, and the former one while a rotation overlaps."""
    former, until = credential.former_verifier, credential.former_until
    if former is None or until is None or now >= until:
        return (credential.verifier,)
    return credential.verifier, former
