"""Hash new passwords in a bounded number of threads.

Standards: RFC 9106 (argon2id) at the cost of `relay.passwords`.
Promises: at most `threads` hashes at once, so at most that many times 19 MiB.
Not here: verifying (`relay.credentials`).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from outgate.relay.passwords import new_verifier


class PasswordHashing:
    """The `Hasher` of a running service."""

    def __init__(self, threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="hash")

    async def hash(self, clear: str, like: str | None = None) -> str:
        """Return the verifier of a password (PHC), with the salt of `like` if it will be compared beside that one."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, new_verifier, clear, like)

    def close(self) -> None:
        """Finish what is running and end the threads."""
        self._pool.shutdown()
