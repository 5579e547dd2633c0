"""Rule 3, the credential: is this name and password right, and what may its owner send for?

Standards: RFC 4954; keyed BLAKE2b (RFC 7693) for what is remembered.
Promises: the slow hash runs once per credential, process and quarter of an hour, in few threads with a bounded, fair
queue; logins that come together share one check; unknown names cost the same and read the same as wrong passwords:
two rows looked for, one hash; a change to a credential or key voids what is remembered of it; an API key of the
account with the role smtp is as good as the password; while a rotation overlaps, the former password is as good as
the new one, for sessions under way too; nothing but `forget` and `follow` reads the store in the caller's thread.
Dangers: what is remembered is keyed with a random key and lives in memory only; a password is never kept or logged.
Whoever holds a working API key is told by time that it works, and by the reply too. What `current` says is as old as
the last `forget` or `follow`: whoever promises a time must call them more often.
Not here: the reply (`relay.session`), who has failed too often (`relay.guessing`), the hash (`relay.passwords`).
"""

from __future__ import annotations

import functools
import hashlib
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
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

    def senders(self, usernames: Collection[str]) -> Mapping[str, Sender]: ...


class Keys(Protocol):
    """Where API keys are found by their text and by their id (`store.identity`)."""

    def find_api_key(self, clear: str) -> ApiKey | None: ...

    def api_key(self, key_id: str) -> ApiKey | None: ...


# What a login was right for: user name, and the password's verifier or the id of an API key; the other one is "".
_Right = tuple[str, str, str]
# What the store says of it: the sender, None if it is void, and when that ends by the time of day.
_Found = tuple[Sender | None, float]


@dataclass(frozen=True, slots=True)
class _Proof:
    """What a login was right for, and until when that is good without a new check."""

    right: _Right
    until: float


class Credentials:
    """Check logins, off the event loop, and remember the right ones for a while."""

    def __init__(self, senders: Senders, keys: Keys, clock: Clock, *, threads: int = 1, waiting: int = 200) -> None:
        self._senders = senders
        self._keys = keys
        self._clock = clock
        self._turns = Turns(threads, waiting, "argon2")
        # Who is known has only to be read anew: he does not wait behind the hashes of strangers.
        self._reading = Turns(1, waiting, "senders")
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(32)
        # By keyed digest: logins that were right, those that end first in front, and checks under way with who waits.
        self._known: dict[bytes, _Proof] = {}
        self._checking: dict[bytes, list[Done]] = {}
        # What was read since the last change was noticed, or is being read anew: then also `_fresh`, read since.
        self._current: dict[_Right, _Found] = {}
        self._fresh: dict[_Right, _Found] = {}
        self._changes = 0
        # Logins that are in use and not in memory, or perhaps as they were before a change.
        self._wanted: set[_Right] = set()
        self._next_end = inf

    def remembered(self, username: str, password: str) -> Sender | None:
        """Return the sender if this very login was right of late and what it was right for still is, else None.

        From memory: None too if the sender has to be read first, see `is_remembered`."""
        if len(username) + len(password) > _LONGEST:
            return None
        digest = self.digest(username, password)
        proof = self._known.get(digest)
        if proof is None:
            return None
        now, found = self._clock.now(), self._current.get(proof.right)
        if now < proof.until:
            if found is None:
                return None
            sender, ends_at = found
            if sender is not None and now < ends_at:
                return sender
        with self._lock:
            self._known.pop(digest, None)
        return None

    def is_remembered(self, username: str, password: str) -> bool:
        """Say whether this very login was right of late: then `check` has only to read whether it still is."""
        return len(username) + len(password) <= _LONGEST and self.digest(username, password) in self._known

    def check(self, username: str, password: str, done: Done, *, source: str = "") -> None:
        """Verify a login in a thread and call `done` there with the sender, or None if it is wrong.

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
            turns = self._reading if digest in self._known else self._turns
            turns.submit(source, functools.partial(self._check, username, password, digest, waiting))
            self._checking[digest] = waiting

    def current(self, sender: Sender) -> Sender | None:
        """Return what the store says of a sender who logged in earlier, or None if that login is void.

        From memory. Who is not there yet is who he was at the last look, until the next `follow` has read him."""
        right = _right_of(sender)
        found = self._current.get(right)
        if found is None:
            with self._lock:
                self._wanted.add(right)
            return sender
        known, ends_at = found
        return None if ends_at != inf and self._clock.now() >= ends_at else known

    def forget(self, in_use: Iterable[Sender] = ()) -> None:
        """Read senders anew, those in use at once: something in the control store has changed. Blocks.

        A login stays known as long as its verifier is the same: else each change of anything would have every
        password hashed again."""
        with self._lock:
            self._changes += 1
            self._fresh = {}
            self._checking = {}  # who comes from now on does not join a check that may have read what was before
        read = self._read({_right_of(each) for each in in_use})
        with self._lock:
            self._current = read | self._fresh
            self._look_ahead()

    def is_due(self) -> bool:
        """Say whether there is something for `follow`: somebody to be read, or an end that the time of day brought."""
        return bool(self._wanted) or self._clock.now() >= self._next_end

    def follow(self) -> None:
        """Read who logged in while all were read anew, and look when the next login ends by the time of day. Blocks.

        Not while `forget` runs."""
        with self._lock:
            wanted, self._wanted = self._wanted, set()
        try:
            read = self._read(wanted)
        except BaseException:
            with self._lock:
                self._wanted |= wanted
            raise
        with self._lock:
            self._current.update(read)
            self._look_ahead()

    def close(self) -> None:
        """Stop the threads; waiting checks are dropped."""
        self._turns.close()
        self._reading.close()

    def digest(self, username: str, password: str) -> bytes:
        """Return a keyed digest of a login: it says nothing without this process."""
        name = username.encode()
        return hashlib.blake2b(
            len(name).to_bytes(4, "big") + name + password.encode(), key=self._secret, digest_size=32
        ).digest()

    def _look_ahead(self) -> None:
        now = self._clock.now()
        self._next_end = min((ends_at for _, ends_at in self._current.values() if ends_at > now), default=inf)

    def _read(self, logins: Iterable[_Right]) -> dict[_Right, _Found]:
        """Read what the store says of logins, each sender and key once: senders together, they are many."""
        wanted = tuple(logins)
        senders = self._senders.senders({right[0] for right in wanted})
        key, now = functools.cache(self._keys.api_key), self._clock.now()
        return {
            right: _standing(senders.get(right[0]), key(right[2]) if right[2] else None, right, now) for right in wanted
        }

    def _check(self, username: str, password: str, digest: bytes, waiting: list[Done]) -> None:
        sender, right, failed = None, None, None
        changes = self._changes
        try:
            proof = self._known.get(digest)
            if proof is not None and self._clock.now() < proof.until:
                right = proof.right
                sender = self._keep(right, changes)
            if sender is None:
                right = self._verify(username, password)
                sender = None if right is None else self._keep(right, changes)
                self._remember(digest, right if sender is not None else None)
        except Exception as error:
            _log.exception("credential.check")
            sender, failed = None, error
        self._checked(digest, waiting)
        for done in waiting:
            done(sender, failed)
        if right is not None and changes != self._changes:
            with self._lock:  # perhaps read before a change: once they are logged in, they are to be read again
                self._wanted.add(right)

    def _keep(self, right: _Right, changes: int) -> Sender | None:
        """Read a sender, and keep what was read in memory unless something has changed meanwhile."""
        found = self._read((right,))[right]
        with self._lock:
            if changes == self._changes:
                self._current[right] = self._fresh[right] = found
                self._next_end = min(self._next_end, found[1])
        return found[0]

    def _remember(self, digest: bytes, right: _Right | None) -> None:
        with self._lock:
            self._known.pop(digest, None)
            if right is None:
                return
            if len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[digest] = _Proof(right, self._clock.now() + _REMEMBERED_S)

    def _checked(self, digest: bytes, waiting: list[Done]) -> None:
        """Have nobody join this check any more."""
        with self._lock:
            if self._checking.get(digest) is waiting:
                del self._checking[digest]

    def _verify(self, username: str, password: str) -> _Right | None:
        # Each look-up is one row by an index, for names and texts that exist or not; the rest of a sender is read
        # once the login is right.
        found = self._senders.credential(username)
        key = self._keys.find_api_key(password)
        now = self._clock.now()
        if key is not None and found is not None and key.opens(found[1], found[0].instance_id, now):
            return username, "", key.id
        verifier = which(password, () if found is None else _good(found[0], now))
        return None if verifier is None else (username, verifier, "")


def _right_of(sender: Sender) -> _Right:
    credential = sender.credential
    return credential.username, "" if sender.key_id else credential.verifier, sender.key_id


def _standing(sender: Sender | None, key: ApiKey | None, right: _Right, now: float) -> _Found:
    """Return a sender with what the login was right for, if that is still good, and until when it is."""
    _, verifier, key_id = right
    if sender is None:
        return None, inf
    credential = sender.credential
    if key_id:
        if key is None or not key.opens(sender.instance.account_id, sender.instance.id, now):
            return None, inf
        return replace(sender, key_id=key_id), inf if key.expires_at is None else key.expires_at
    if verifier == credential.verifier:
        return sender, inf
    if verifier in _good(credential, now):
        return replace(sender, credential=replace(credential, verifier=verifier)), credential.former_until or inf
    return None, inf


def _good(credential: Credential, now: float) -> tuple[str, ...]:
    """Return the verifiers that are good now: the credential's, and the former one while a rotation overlaps."""
    former, until = credential.former_verifier, credential.former_until
    if former is None or until is None or now >= until:
        return (credential.verifier,)
    return credential.verifier, former
