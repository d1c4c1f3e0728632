"""Calls of a model in threads: so many at once, so many waiting, no more."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from serving.errors import CallError


class Runs:
    """A bounded pool of threads behind an event loop, in which it is used.

    Args:
        at_once: calls that run at the same time.
        waiting: calls that may wait for one of them to end.

    Attributes:
        places: calls that may run or wait.
    """

    def __init__(self, at_once: int, waiting: int):
        self.places = at_once + waiting
        self._taken = 0
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="run")
        self._threads = asyncio.Semaphore(at_once)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Holds one of the places; `call` needs one.

        Taken before a request is read, it bounds the memory of all requests.

        Raises:
            CallError: UNAVAILABLE if all are taken.
        """
        if self._taken == self.places:
            raise CallError(
                "UNAVAILABLE",
                "The server is busy: the queue of requests is full",
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def call(self, function: Callable, seconds: float | None):
        """Runs `function(deadline)` in a thread and returns its result.

        Cancelled or out of time while it waits, it never runs, and nothing
        holds it any more.

        Args:
            function: takes the deadline, of `time.monotonic`, or None.
            seconds: until then.

        Raises:
            CallError: DEADLINE_EXCEEDED if the time is over.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._threads.acquire()
                return await self._start(function, deadline)
        except TimeoutError:
            raise CallError(
                "DEADLINE_EXCEEDED",
                f"Timed out: no result within {seconds:g} seconds",
            ) from None

    def _start(self, function, deadline):
        """Runs a function in a thread that is free, until the very end.

        Nothing can stop it: the thread is taken even if nobody waits.
        """
        loop = asyncio.get_running_loop()
        future = self._pool.submit(function, deadline)
        future.add_done_callback(
            lambda _: loop.call_soon_threadsafe(self._threads.release)
        )
        return asyncio.wrap_future(future)

    def close(self) -> None:
        """Waits for the calls that run."""
        self._pool.shutdown(wait=True)
