"""What was found out and may be used again: values until their time by the injected clock, answers to questions.

Standards: RFC 1035 section 4.1.3 (TTL), 2308 (negative answers).
Promises: nothing outlives its time; memory is bounded, the longest unused goes first; a failure is not
remembered and erases nothing; one question is under way once, unless someone needs a fresher answer, and no
longer than someone waits for it.
Dangers: a fresh answer may arrive before an older one that was asked for earlier: the fresher one stays.
Not here: finding out (`net.dns`, `net.authority`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Generic, TypeVar

from outgate.base.clock import Clock
from outgate.base.tasks import spawn
from outgate.domains.ask import Answer, Question, is_askable
from outgate.net.allowance import Allowance

K = TypeVar("K")
V = TypeVar("V")


class Memory(Generic[K, V]):
    """Values by key, each for a number of seconds."""

    def __init__(self, clock: Clock, size: int) -> None:
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> tuple[V, int] | None:
        """Return the value and the whole seconds that it has left, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        left = int(entry[0] - self._clock.now())
        if left <= 0:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[1], left

    def keep(self, key: K, value: V, seconds: int) -> None:
        """Remember `value` in place of what was; 0 seconds only erase that."""
        self._entries.pop(key, None)
        if seconds > 0:
            self._entries[key] = (self._clock.now() + seconds, value)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget `key` if it is known."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


class Asking:
    """Questions under way and answers remembered, in front of a function that finds answers."""

    def __init__(
        self,
        find: Callable[[Question, bool, Allowance | None], Coroutine[Any, Any, Answer]],
        clock: Clock,
        *,
        longest: int,
        size: int,
    ) -> None:
        """`find` takes a question, whether it must be fresh, and what may be spent; answers are kept for their TTL,
        `longest` at most."""
        self._find = find
        self._longest = longest
        self._known: Memory[Question, Answer] = Memory(clock, size)
        self._asking: dict[Question, _Shared] = {}

    async def ask(self, question: Question, *, fresh: bool, allowance: Allowance | None) -> Answer:
        """Answer from memory or find out; `fresh` finds out whatever memory says."""
        question = Question(question.name.removesuffix(".").lower(), question.rdtype.upper())
        if not is_askable(question.name):
            return Answer("badname")
        if not fresh and (known := self._known.get(question)) is not None:
            return replace(known[0], ttl=known[1], server="cache")
        others = None if fresh else self._asking.get(question)
        if others is not None:
            answer = await self._wait(question, others)
            if answer.status != "limit":  # that is what they could spend: it says nothing about our allowance
                return answer
        return await self._wait(question, self._begin(question, fresh, allowance))

    def known(self, question: Question) -> Answer | None:
        """Return what memory says now, if anything. The name is in lower case, without a final dot."""
        entry = self._known.get(question)
        return None if entry is None else entry[0]

    def forget(self) -> None:
        """Empty the memory."""
        self._known.clear()

    def _begin(self, question: Question, fresh: bool, allowance: Allowance | None) -> _Shared:
        task = spawn(self._find(question, fresh, allowance), f"dns {question.rdtype} {question.name}")
        shared = self._asking[question] = _Shared(task)
        task.add_done_callback(lambda _: self._found(question, shared))
        return shared

    async def _wait(self, question: Question, shared: _Shared) -> Answer:
        shared.waiting += 1
        try:
            # Shielded: the question may be others' too when one who waits for it gives up.
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if shared.waiting == 0 and not shared.task.done():
                shared.task.cancel()
                if self._asking.get(question) is shared:  # nobody is to join what ends here
                    del self._asking[question]

    def _found(self, question: Question, shared: _Shared) -> None:
        if self._asking.get(question) is not shared:  # a fresher one is under way: its answer counts
            return
        del self._asking[question]
        if shared.task.cancelled() or shared.task.exception() is not None:
            return
        answer = shared.task.result()
        if not answer.failed:  # what is known replaces memory, and a TTL of 0 erases it
            self._known.keep(question, answer, min(answer.ttl, self._longest))


class _Shared:
    """A question under way, and how many wait for its answer."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[Answer]) -> None:
        self.task = task
        self.waiting = 0
