"""What a run tells while it goes on: a table that lives, or plain lines."""

import os
import time
from pathlib import Path

_STYLES = {"cached": "green", "complete": "green", "failed": "red"}
# Of a log: enough for a line of a progress bar.
_TAIL_BYTES = 4096


class PlainConsole:
    """Prints a line for each thing that happens, for files and pipes."""

    def say(self, line: str) -> None:
        """Tells what is of no one component."""
        print(line, flush=True)

    def state(self, component: str, state: str, detail: str = "") -> None:
        """Tells that a component is in another state now."""
        self.say(f"{component:<16} {state:<11} {detail}".rstrip())

    def tick(self, component: str, log: Path) -> None:
        """Is called again and again while a component runs."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class LiveConsole(PlainConsole):
    """Keeps a table of all components on the terminal.

    Args:
        components: their names in order.
        console: `rich.console.Console`; that of standard output by default.
    """

    def __init__(self, components: list[str], console=None):
        from rich.console import Console
        from rich.live import Live

        self.rows = dict.fromkeys(components, ("", ""))
        self.started = {}
        self.console = console or Console()
        self.live = Live(
            console=self.console,
            get_renderable=self._table,
            refresh_per_second=4,
        )

    def _table(self):
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for title in ("component", "state", "time"):
            table.add_column(title, no_wrap=True)
        table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
        for name, (state, detail) in self.rows.items():
            style = _STYLES.get(state, "yellow")
            table.add_row(
                name, f"[{style}]{state}[/]", self._time(name), _plain(detail)
            )
        return table

    def _time(self, name):
        if name not in self.started:
            return ""
        begin, end = self.started[name]
        return duration((end or time.monotonic()) - begin)

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False)

    def state(self, component: str, state: str, detail: str = "") -> None:
        if state in ("running", "goes on"):
            # Why, and where the log is, stays above the table.
            self.say(f"{component}: {detail}")
            self.started[component] = (time.monotonic(), None)
        elif component in self.started:
            begin, _ = self.started[component]
            self.started[component] = (begin, time.monotonic())
        self.rows[component] = (state, detail)

    def tick(self, component: str, log: Path) -> None:
        state, detail = self.rows[component]
        self.rows[component] = (state, last_line(log) or detail)

    def __enter__(self):
        self.live.start()
        return self

    def __exit__(self, *error):
        self.live.stop()


def make_console(components: list[str], is_terminal: bool) -> PlainConsole:
    """Returns the console for a terminal, or for a file."""
    return LiveConsole(components) if is_terminal else PlainConsole()


def _plain(text):
    from rich.text import Text

    return Text(text)


def tail(log: Path) -> list[str]:
    """Returns the last lines of a log, of a progress bar what it shows now."""
    try:
        with open(log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line]


def last_line(log: Path) -> str:
    return next(reversed(tail(log)), "")


def duration(seconds: float) -> str:
    """Returns a time such as `3.2 s` or `1:02:03`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{seconds:02}"
    return f"{minutes}:{seconds:02}"
