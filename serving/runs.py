"""Calls of a model in threads: so many at once, so many waiting, no more."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from serving.errors import CallError


class Runs:
    """A bounded pool of threads behind an event loop.

    Args:
        at_once: calls that run at the same time.
        waiting: calls that may wait for one of them to end.
    """

    def __init__(self, at_once: int, waiting: int):
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="run")
        self._places = threading.BoundedSemaphore(at_once + waiting)

    async def call(self, function: Callable, seconds: float | None):
        """Runs `function(deadline)` in a thread and returns its result.

        Cancelled or out of time while it waits, it never runs.

        Args:
            function: takes the deadline, of `time.monotonic`, or None.
            seconds: until then.

        Raises:
            CallError: UNAVAILABLE if too many calls are waiting,
                DEADLINE_EXCEEDED if the time is over.
        """
        if not self._places.acquire(blocking=False):
            raise CallError(
                "UNAVAILABLE",
                "The server is busy: the queue of requests is full",
            )
        deadline = None if seconds is None else time.monotonic() + seconds
        future = self._pool.submit(function, deadline)
        future.add_done_callback(lambda _: self._places.release())
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise CallError(
                "DEADLINE_EXCEEDED",
                f"Timed out: no result within {seconds:g} seconds",
            ) from None

    def close(self) -> None:
        """Drops the calls that wait and lets those that run end."""
        self._pool.shutdown(wait=True, cancel_futures=True)
