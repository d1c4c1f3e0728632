"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def killed_with_this() -> Callable[[], None]:
    """Returns a `preexec_fn` for a child that dies when this thread does.

    Also if this process is killed, and cannot tell the child. On Linux;
    elsewhere the child is left to itself.
    """
    parent = os.getpid()
    # Loaded before the fork, after which little may be done.
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def tie():
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            # It may have died meanwhile.
            if os.getppid() != parent:
                os._exit(1)

    return tie
