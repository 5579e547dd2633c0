"""Sign messages with the domain's key, in threads: OpenSSL lets go of the interpreter while it multiplies.

Standards: RFC 6376 (DKIM), RFC 8301 (rsa-sha256, 2048 bits), RFC 8463 (ed25519-sha256).
Promises: the same message gives the same signatures (PKCS#1 v1.5 and Ed25519 choose nothing, `t=` is the time of
acceptance, the job names the keys), so nothing is stored; of two, the RSA key's comes first, which every receiver can
judge, and neither covers the other; each key is parsed once; a job that has no content at hand is read from the
spool here.
Dangers: a private key is in memory while it is used; it never leaves this module and never reaches a log.
Not here: what is signed (`domains.dkim`), where keys are kept (`store.tenancy`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import sha256
from queue import SimpleQueue

from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from outgate.base.log import Log
from outgate.domains import dkim
from outgate.model.flow import Job, Prepared

_log = Log("outgate.signer")
_KEYS = 1000

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Done = Callable[[Prepared | None, Exception | None], None]


class Signer:
    """Prepare jobs for the wire."""

    def __init__(
        self,
        *,
        threads: int,
        key_pem: Callable[[str], bytes],
        load: Callable[[Job], tuple[bytes, bytes]],
        notify: Callable[[Callable[[], None]], object],
    ) -> None:
        """`key_pem` opens a key by id, `load` reads (trace, content) of a job, `notify` runs on the loop."""
        self._key_pem = key_pem
        self._load = load
        self._notify = notify
        self._keys: OrderedDict[str, PrivateKey] = OrderedDict()
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[tuple[Job, Done] | None] = SimpleQueue()
        self._ready: deque[tuple[Done, Prepared | None, Exception | None]] = deque()
        self._woken = False
        self._threads = [
            threading.Thread(target=self._run, name=f"signer-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def prepare(self, job: Job, done: Done) -> None:
        """Sign `job` in a thread, then call `done` on the event loop with what goes on the wire, or an error."""
        self._jobs.put((job, done))

    def forget(self, key_id: str) -> None:
        """Drop a key from memory: it has been replaced or deleted."""
        with self._lock:
            self._keys.pop(key_id, None)

    def close(self) -> None:
        """Stop the threads once what waits is done."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=5)

    def _run(self) -> None:
        while (work := self._jobs.get()) is not None:
            job, done = work
            try:
                prepared: Prepared | None = self.sign(job)
                error: Exception | None = None
            except Exception as failure:
                _log.error("message.not_signed", queue_id=job.queue_id, error=repr(failure))
                prepared, error = None, failure
            self._ready.append((done, prepared, error))
            if not self._woken:  # one wake-up serves all that are ready when the loop gets to it
                self._woken = True
                try:
                    self._notify(self._hand_over)
                except RuntimeError:  # the loop has been closed: the service is ending
                    return

    def _hand_over(self) -> None:
        self._woken = False
        while self._ready:
            done, prepared, error = self._ready.popleft()
            try:
                done(prepared, error)
            except Exception:  # the others that are ready must not wait for the next message
                _log.exception("message.not_handed_on")

    def sign(self, job: Job) -> Prepared:
        """Return `job` with its DKIM-Signature, or two. Raises what reading the spool or the key raises."""
        trace, content = (
            (job.trace, job.content) if job.trace is not None and job.content is not None else self._load(job)
        )
        keys, at = job.signing_key, int(job.accepted_at)
        covered = dkim.cover(trace, content)
        unsigned = covered.unsigned("rsa-sha256", domain=keys.domain, selector=keys.selector, timestamp=at)
        key = self._key(keys.key_id)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError(f"key {keys.key_id} is not an RSA key")
        fields = unsigned.finish(key.sign(unsigned.signed, padding.PKCS1v15(), SHA256()))
        if keys.second_id:
            unsigned = covered.unsigned(
                "ed25519-sha256", domain=keys.domain, selector=keys.second_selector, timestamp=at
            )
            key = self._key(keys.second_id)
            if not isinstance(key, ed25519.Ed25519PrivateKey):
                raise TypeError(f"key {keys.second_id} is not an Ed25519 key")
            # What is signed is the hash, like any octets (RFC 8463 section 3).
            fields += unsigned.finish(key.sign(sha256(unsigned.signed).digest()))
        return Prepared(job, fields + trace, content)

    def _key(self, key_id: str) -> PrivateKey:
        with self._lock:
            key = self._keys.get(key_id)
            if key is not None:
                self._keys.move_to_end(key_id)
                return key
        # The key was validated when it came in, and its seal says that it is the same: no need to do it again.
        loaded = load_pem_private_key(self._key_pem(key_id), None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(loaded, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
            raise TypeError(f"key {key_id} is of a type that does not sign mail")
        with self._lock:
            self._keys[key_id] = loaded
            if len(self._keys) > _KEYS:
                self._keys.popitem(last=False)
        return loaded
