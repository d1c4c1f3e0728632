"""A real headless browser for tests, driven by Chrome's DevTools Protocol.

A Chromium or Chrome on PATH is taken first. Else it is the Chromium of Qt that
the package PySide6-WebEngine brings; that one needs system libraries which a
desktop has and a bare server may lack, and the error then says so.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
START, ANSWER = 60, 30
LISTENING = re.compile(rb"DevTools listening on ws://([^/\s]+)/")

# Both do without a sandbox, which containers and root forbid: the only page
# that they open is our own.
SWITCHES = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


class NoBrowser(Exception):
    """No browser could be started."""


def found_command(profile: str) -> tuple[list[str], dict]:
    """Returns the command and the environment that start a browser."""
    found = [path for name in NAMES if (path := shutil.which(name))]
    if found:
        switches = *SWITCHES, "--headless", "--remote-debugging-port=0"
        folder = f"--user-data-dir={profile}"
        return [found[0], *switches, folder, "about:blank"], {}
    program = str(Path(__file__).with_name("qt_browser.py"))
    return [sys.executable, program], {
        "QT_QPA_PLATFORM": "offscreen",
        "QTWEBENGINE_REMOTE_DEBUGGING": f"127.0.0.1:{_free_port()}",
        "QTWEBENGINE_CHROMIUM_FLAGS": " ".join(SWITCHES),
        "XDG_RUNTIME_DIR": profile,
        "HOME": profile,
    }


def _free_port():
    """Returns a port; unlike Chrome, Qt does not choose one by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def started():
    """Starts a browser; gives host and port of its DevTools."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command, environment = found_command(profile)
        process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        reader = threading.Thread(target=process.stderr.read)
        try:
            address = _address(process)
            # Or the browser would wait for somebody to read its notes.
            reader.start()
            yield address
        finally:
            _kill(process)
            process.wait()
            if reader.ident:
                reader.join()
            process.stderr.close()


def _kill(process):
    """Kills a browser with all its renderers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _address(process):
    """Returns what the browser says of its DevTools, or tells why it died."""
    # All of them, since each holds the pipe.
    watch = threading.Timer(START, _kill, [process])
    watch.start()
    said = []
    try:
        for line in process.stderr:
            said.append(line.decode(errors="replace"))
            if match := LISTENING.search(line):
                return match[1].decode()
    finally:
        watch.cancel()
    raise NoBrowser(
        f"no headless browser starts: install one (apt-get install chromium)\n"
        f"{shlex.join(process.args)} said:\n{''.join(said[-20:])}"
    )


@dataclass
class Visit:
    """What opening a page came to.

    Attributes:
        value: of the script.
        problems: what the console got: errors, warnings, notes.
        requests: addresses that the page asked for.
    """

    value: object = None
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Tab:
    """A connection to a page's DevTools."""

    def __init__(self, connection):
        self.connection = connection
        self.numbers = itertools.count()
        self.visit = Visit()

    async def call(self, method, **parameters):
        """Calls a method of the protocol; returns its result."""
        number = next(self.numbers)
        request = {"id": number, "method": method, "params": parameters}
        await self.connection.send_json(request)
        answer = await self.until(lambda message: message.get("id") == number)
        assert "error" not in answer, answer
        return answer["result"]

    async def until(self, wanted):
        """Receives messages up to the one that is wanted."""
        while True:
            message = await self.connection.receive_json(timeout=ANSWER)
            self._note(message)
            if wanted(message):
                return message

    def _note(self, message):
        parameters = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.visit.requests.append(parameters["request"]["url"])
            case "Log.entryAdded":
                self.visit.problems.append(parameters["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.visit.problems.append(json.dumps(parameters))


def visit(address: str, page: Path, script: str, **options) -> Visit:
    """Opens a file and evaluates a script in it.

    Args:
        address: what `started` gives.
        page: an HTML file.
        script: an expression; its value, or its promise's, is returned.
        options: see `_visit`.
    """
    return asyncio.run(_visit(address, page, script, **options))


async def _visit(address, page, script, width=1200, dark=False, picture=None):
    """Does that, in a window so wide; writes a picture of the whole page."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{address}/json") as response:
            targets = await response.json(content_type=None)
        (target, *_) = (t for t in targets if t["type"] == "page")
        url = target["webSocketDebuggerUrl"]
        async with session.ws_connect(url, max_msg_size=0) as connection:
            tab = Tab(connection)
            for domain in ("Page", "Network", "Runtime", "Log"):
                await tab.call(f"{domain}.enable")
            await _set_window(tab, width, 800, dark)
            await tab.call("Page.navigate", url=page.as_uri())
            await tab.until(lambda m: m.get("method") == "Page.loadEventFired")
            result = await tab.call(
                "Runtime.evaluate",
                expression=script,
                awaitPromise=True,
                returnByValue=True,
            )
            assert "exceptionDetails" not in result, result
            tab.visit.value = result["result"].get("value")
            if picture:
                await _photograph(tab, width, dark, picture)
            return tab.visit


async def _set_window(tab, width, height, dark):
    await tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 600,
    )
    scheme = "dark" if dark else "light"
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    await tab.call("Emulation.setEmulatedMedia", features=features)


async def _photograph(tab, width, dark, picture):
    size = (await tab.call("Page.getLayoutMetrics"))["cssContentSize"]
    await _set_window(tab, width, size["height"], dark)
    result = await tab.call("Page.captureScreenshot", format="png")
    picture.write_bytes(base64.b64decode(result["data"]))
