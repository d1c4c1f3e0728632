"""Starts a component's process, waits for it, and passes signals on."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

from pipeline.orchestration import files
from pipeline.orchestration.execute import INPUT
from pipeline.orchestration.execute import OUTPUT

_PAUSE_SECONDS = 0.1


class Interrupted(Exception):
    """The run was asked to end, and has.

    Attributes:
        status: the exit status, 130 or 143.
    """

    def __init__(self, number: int):
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.status = 128 + number


class Signals:
    """Notes SIGINT and SIGTERM, so that nothing ends in the middle.

    Attributes:
        noted: the numbers of those that came.
    """

    def __init__(self):
        self.noted = []

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Takes the signals from who had them, for a while."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {
            number: signal.signal(number, lambda n, _: self.noted.append(n))
            for number in numbers
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raises `Interrupted` if one came."""
        if self.noted:
            raise Interrupted(self.noted[0])


def run(
    folder: Path,
    request: dict,
    log: Path,
    lock: int,
    signals: Signals,
    tick: Callable[[], None],
) -> dict:
    """Runs a component in a process of its own.

    The first signal is passed on, for the component to save what it has; the
    second one kills it.

    Args:
        folder: where the two tell each other.
        request: what to call, see `execute`.
        log: file to which its output is added.
        lock: descriptor that it inherits, so that no other run begins the same
            before it is gone.
        signals: of this process.
        tick: called again and again while it runs.

    Returns:
        Its outputs (`"outputs"`), why it failed (`"error"`, and whether that is
        a sentence for users, `"expected"`), or nothing after a signal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    (folder / OUTPUT).unlink(missing_ok=True)
    files.write_json(folder / INPUT, request)
    reading, writing = os.pipe()
    try:
        with open(log, "ab") as file:
            process = _start(folder, reading, lock, file)
        try:
            status = _wait(process, signals, tick)
        finally:
            # Also what it started, and also if this one fails here.
            _kill(process)
            process.wait()
    finally:
        os.close(reading)
        os.close(writing)
    answer = files.read_json(folder / OUTPUT)
    return answer or _unanswered(status, signals)


def _start(folder, launcher, lock, log):
    name = "pipeline.orchestration.execute"
    return subprocess.Popen(
        [sys.executable, "-m", name, str(folder), str(launcher)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        pass_fds=(launcher, lock),
        # Ctrl-C reaches it once, through this process.
        start_new_session=True,
    )


def _wait(process, signals, tick):
    passed = 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_PAUSE_SECONDS)
        for number in signals.noted[passed:]:
            passed += 1
            if passed == 1:
                process.send_signal(number)
            else:
                _kill(process)
        tick()


def _kill(process):
    """Kills a process's whole group, of which it is the leader."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _unanswered(status, signals):
    """Returns what there is to say of a process that said nothing."""
    if signals.noted:
        return {}
    if status in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        signals.noted.append(status - 128)
        return {}
    if status < 0:
        name = signal.Signals(-status).name
        reason = f"it was killed by {name}"
        if -status == signal.SIGKILL:
            reason += ", perhaps since memory ran out"
        return {
            "error": f"{reason}: the same command goes on",
            "expected": True,
        }
    return {"error": f"it ended with status {status}", "expected": False}
