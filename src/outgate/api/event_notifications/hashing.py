"""Hash new passwords in a bounded number of threads.

Standards: RFC 9106 (argon2id) at the cost that `relay.credentials` verifies with.
Promises: at most `threads` hashes at once, so at most that many times 19 MiB.
Not here: verifying (`relay.credentials`).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from outgate.relay.credentials import password_hasher


class PasswordHashing:
    """The `Hasher` of a running service."""

    def __init__(self, threads: int = 1) -> None:
        self._argon2 = password_hasher()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="hash")

    async def hash(self, clear: str) -> str:
        """Return the verifier of a password, a PHC string with its own salt."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._argon2.hash, clear)

    def close(self) -> None:
        """Finish what is running and end the threads."""
        self._pool.shutdown()
