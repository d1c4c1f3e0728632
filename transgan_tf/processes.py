"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Of a child that was told to stop, as `shell_status`.
TOLD_TO_STOP = (128 + signal.SIGINT, 128 + signal.SIGTERM)
# Python ignores them, which the command would inherit.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)


def tied_to_this(command: list[str]) -> list[str]:
    """Returns the command that runs another one, tied to this thread.

    It is killed when the thread ends that starts it, also if this whole
    process is killed and cannot tell it. On Linux; elsewhere it is left to
    itself. Call this in the process that starts it.

    A small program ties itself and then becomes the command. As a `preexec_fn`
    the same would need a fork, in which gRPC starts threads that abort the
    child when `subprocess` closes their files (grpc/grpc#43055).

    Args:
        command: program and arguments, as `subprocess.Popen` takes them.
    """
    return [sys.executable, "-m", __name__, str(os.getpid()), *command]


def shell_status(status: int) -> int:
    """Returns a child's status as shells have it: 128 + n after signal n.

    Args:
        status: of `subprocess.Popen.wait`, -n after signal n.
    """
    return status if status >= 0 else 128 - status


def main(argv: list[str]) -> None:
    """Ties this process to its parent and becomes a command.

    Args:
        argv: process id of the parent, then the command's words.
    """
    parent, *command = argv
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # It may have died meanwhile.
        if os.getppid() != int(parent):
            sys.exit(1)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
