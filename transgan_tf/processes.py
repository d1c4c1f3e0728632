"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tied(command: list[str]) -> list[str]:
    """Returns the words of a child that dies when this thread does.

    Also if this process is killed, and cannot tell the child. On Linux;
    elsewhere the child is left to itself.

    A small program ties itself and then becomes the command. As a `preexec_fn`
    the same would need a fork, in which gRPC starts threads that abort the
    child when `subprocess` closes their files (grpc/grpc#43055).

    Args:
        command: program and arguments, as `subprocess.Popen` takes them.
    """
    return [sys.executable, "-m", __name__, str(os.getpid()), *command]


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
            os._exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
