"""Rule 3, the credential: is this name and password right, and what may its owner send for?

Standards: RFC 4954; argon2id (RFC 9106) for the stored verifier, keyed BLAKE2b (RFC 7693) for the cache.
Promises: the slow hash runs once per credential and process, in few threads with a bounded queue; unknown
names cost the same and read the same as wrong passwords; a change to a credential voids what is remembered of it;
while a rotation overlaps, the former password is as good as the new one, for sessions under way too.
Dangers: the cache's key is random and lives in memory only; a password is never kept or logged. While a rotation
overlaps, a wrong password for that name costs two hashes: time then tells that the name exists.
Not here: the reply (`relay.session`), API keys as passwords (they join `check`).
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.model.tenancy import Sender

_log = Log("outgate.credentials")
_CACHED = 10_000


class Senders(Protocol):
    """Where senders are found by user name (`store.tenancy`)."""

    def sender(self, username: str) -> Sender | None: ...


def password_hasher() -> PasswordHasher:
    """Return the argon2id profile for passwords: 19 MiB, two passes, one lane."""
    return PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


class Busy(Exception):
    """More logins wait to be checked than we are ready to queue."""


class Credentials:
    """Check logins, off the event loop, and remember the right ones for a while."""

    def __init__(self, senders: Senders, clock: Clock, *, threads: int = 1, waiting: int = 200) -> None:
        self._senders = senders
        self._clock = clock
        self._hasher = password_hasher()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._waiting = waiting
        self._queued = 0
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        # Keyed digest of a login that was right → the verifier it was right for.
        self._known: dict[bytes, str] = {}
        self._current: dict[str, Sender | None] = {}
        # Verified against for names nobody has, so that they take as long.
        self._dummy = self._hasher.hash(secrets.token_hex(16))

    def remembered(self, username: str, password: str) -> Sender | None:
        """Return the sender if this very login was right before and its verifier is still the same, else None."""
        digest = self._digest(username, password)
        verifier = self._known.get(digest)
        if verifier is None:
            return None
        sender = self._with(self._stored(username), verifier)
        if sender is None:
            self._known.pop(digest, None)
        return sender

    def check(self, username: str, password: str, done: Callable[[Sender | None, Exception | None], None]) -> None:
        """Verify a login in the pool and call `done` there with the sender, or None if it is wrong.

        Raises `Busy` if too many wait."""
        with self._lock:
            if self._queued >= self._waiting:
                raise Busy
            self._queued += 1
        self._pool.submit(self._check, username, password, done)

    def current(self, sender: Sender) -> Sender | None:
        """Return what the store says now of a sender who logged in earlier, or None if that login is void.

        Reads the store once after each change, else memory."""
        return self._with(self._stored(sender.credential.username), sender.credential.verifier)

    def _with(self, sender: Sender | None, verifier: str) -> Sender | None:
        """Return a sender whose credential has the verifier that the login was right for, if that is still good."""
        if sender is None:
            return None
        credential = sender.credential
        if verifier == credential.verifier:
            return sender
        until = credential.former_until
        if verifier == credential.former_verifier and until is not None and self._clock.now() < until:
            return replace(sender, credential=replace(credential, verifier=verifier))
        return None

    def _stored(self, username: str) -> Sender | None:
        """Read a sender from the store: once after each change, then from memory."""
        try:
            return self._current[username]
        except KeyError:
            found = self._current[username] = self._senders.sender(username)
            return found

    def forget(self) -> None:
        """Read senders anew: something in the control store has changed.

        A login stays known as long as its verifier is the same: else each change of anything would have every
        password hashed again."""
        self._current = {}

    def close(self) -> None:
        """Stop the threads; waiting checks are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, username: str, password: str, done: Callable[[Sender | None, Exception | None], None]) -> None:
        try:
            sender = self._verify(username, password)
        except Exception as error:
            _log.exception("credential.check")
            done(None, error)
            return
        finally:
            with self._lock:
                self._queued -= 1
        if sender is not None:
            with self._lock:
                if len(self._known) >= _CACHED:
                    self._known.clear()
                self._known[self._digest(username, password)] = sender.credential.verifier
        done(sender, None)

    def _verify(self, username: str, password: str) -> Sender | None:
        sender = self._senders.sender(username)
        if sender is None:
            self._matches(self._dummy, password)
            return None
        credential = sender.credential
        if self._matches(credential.verifier, password):
            return sender
        former = credential.former_verifier
        if former is not None and (found := self._with(sender, former)) and self._matches(former, password):
            return found
        return None

    def _matches(self, verifier: str, password: str) -> bool:
        try:
            return self._hasher.verify(verifier, password)
        except (Argon2Error, InvalidHashError):
            return False

    def _digest(self, username: str, password: str) -> bytes:
        name = username.encode()
        return hashlib.blake2b(
            len(name).to_bytes(4, "big") + name + password.encode(), key=self._key, digest_size=32
        ).digest()
