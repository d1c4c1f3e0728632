"""A model's versions: found in its folder, loaded, switched, unloaded.

As TensorFlow Serving does it: the highest number is served; a new version
becomes available before the old one goes; one that cannot be loaded leaves the
old one serving.
"""

import contextlib
import gc
import json
import logging
import threading
import time
from pathlib import Path

from serving.errors import CallError
from serving.errors import from_exception
from serving.errors import invalid
from serving.replay import replay
from serving.servable import Servable
from serving.versions import CARD
from serving.versions import VersionError
from serving.versions import find_versions
from transgan_tf.configs import Config
from transgan_tf.sampling import IMAGES_AT_ONCE
from transgan_tf.sampling import images_at_once

START, LOADING, AVAILABLE, UNLOADING, END = (
    "START",
    "LOADING",
    "AVAILABLE",
    "UNLOADING",
    "END",
)
# A version that fails is tried so often in all.
MOST_ATTEMPTS = 6

log = logging.getLogger(__name__)


class Version:
    """One version: its state, and its servable while it is loaded.

    Attributes:
        number: its folder's name.
        state: one of the five above.
        error: `CallError` of the load that failed, or None.
        servable: `Servable`, or None while it is not loaded.
        most_rows: of a batch that fits into memory.
        calls: that use it.
        attempts: loads that failed.
        next_attempt: not before this time of `time.monotonic`.
    """

    def __init__(self, number: int):
        self.number = number
        self.state = START
        self.error = None
        self.servable = None
        self.most_rows = IMAGES_AT_ONCE
        self.calls = 0
        self.attempts = 0
        self.next_attempt = 0.0


class Model:
    """A folder of versions; any thread may call it.

    Args:
        name: under which it is served.
        folder: with a folder for each version, named by its number.
        labels: version numbers by label; those versions are loaded beside the
            highest.
        poll_seconds: between two looks at the folder.
        retry_seconds: from a failed load to the next attempt.

    Attributes:
        available: event, set once a version serves.
    """

    def __init__(
        self,
        name: str,
        folder,
        labels: dict[str, int] | None = None,
        poll_seconds: float = 1.0,
        retry_seconds: float = 60.0,
    ):
        self.name = name
        self.folder = Path(folder)
        self.labels = labels or {}
        self.poll_seconds = poll_seconds
        self.retry_seconds = retry_seconds
        self.available = threading.Event()
        self._lock = threading.Lock()
        self._versions = {}
        self._complaint = None
        self._stopping = threading.Event()
        self._watcher = threading.Thread(
            target=self._watch, name="versions", daemon=True
        )

    def start(self) -> None:
        """Starts to watch the folder, in a thread."""
        self._watcher.start()

    def close(self) -> None:
        """Stops watching and unloads what no call uses."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for version in list(self._versions.values()):
            self._retire(version)
        self._unload_unused()

    def _watch(self):
        while True:
            try:
                self.poll()
            except Exception:
                log.exception("looking for versions in %s failed", self.folder)
            if self._stopping.wait(self.poll_seconds):
                return

    def poll(self) -> None:
        """Looks at the folder once; loads and unloads what has changed."""
        self._unload_unused()
        folders = self._find()
        if folders is None:
            return
        for number in self._versions.keys() - folders.keys():
            # Should it come back, it is another one.
            self._versions[number].next_attempt = 0.0
            self._versions[number].attempts = 0
        newest = max(folders, default=None)
        wanted = folders.keys() & {*self.labels.values(), newest}
        for number in sorted(wanted):
            version = self._versions.get(number)
            if version is None or version.state == END:
                self._load(number, folders[number])
        serving = {
            number
            for number, version in self._versions.items()
            if version.state == AVAILABLE
        }
        if not wanted or max(wanted) in serving:
            for number in serving - wanted:
                self._retire(self._versions[number])
        if serving & wanted:
            self.available.set()

    def _find(self):
        """Returns the versions' folders, or None for what cannot be read.

        As TensorFlow Serving, which takes that for a passing fault. Tells once
        why there is nothing to serve.
        """
        folders = complaint = None
        try:
            folders = find_versions(self.folder)
        except VersionError as error:
            complaint = str(error)
        if folders == {}:
            complaint = (
                f"No versions of servable {self.name} found under base path "
                f"{self.folder}. Did you forget to name your leaf directory as "
                "a number (eg. '/1/')?"
            )
        if complaint not in (None, self._complaint):
            log.warning("%s", complaint)
        self._complaint = complaint
        return folders

    def _load(self, number, folder):
        with self._lock:
            version = self._versions.get(number)
            if version is None or version.error is None:
                version = self._versions[number] = Version(number)
            if time.monotonic() < version.next_attempt:
                return
            version.state = LOADING
        servable = None
        try:
            most_rows = read_most_rows(folder)
            servable = load(folder)
        except Exception as error:
            told = from_exception(error)
            # Another one, whose traceback does not hold what was loaded.
            failure = CallError(told.code, told.message)
        if servable is None:
            self._note_failure(version, failure)
            return
        with self._lock:
            version.servable, version.error = servable, None
            version.most_rows, version.state = most_rows, AVAILABLE
        collect_garbage()
        log.info("version %d of %s is available", number, self.name)

    def _note_failure(self, version, error):
        with self._lock:
            version.attempts += 1
            version.error, version.state = error, END
            left = version.attempts < MOST_ATTEMPTS
            seconds = self.retry_seconds if left else float("inf")
            version.next_attempt = time.monotonic() + seconds
        collect_garbage()
        log.error(
            "version %d of %s cannot be loaded: %s",
            version.number,
            self.name,
            error.message,
        )

    def _retire(self, version):
        """Takes no more calls; unloads if there are none at hand."""
        with self._lock:
            if version.state == AVAILABLE:
                version.state = UNLOADING
        self._unload_unused()

    def _unload_unused(self):
        """Unloads what was retired and whose last call has ended.

        Never at the end of that call: it may run on the event loop.
        """
        with self._lock:
            unused = [
                version
                for version in self._versions.values()
                if version.state == UNLOADING and version.calls == 0
            ]
        for version in unused:
            self._unload(version)

    def _unload(self, version):
        version.servable.close()
        with self._lock:
            version.servable, version.state = None, END
        collect_garbage()
        log.info("version %d of %s is unloaded", version.number, self.name)

    @contextlib.contextmanager
    def use(self, spec):
        """Yields the `Version` that a request names; it stays loaded meanwhile.

        Args:
            spec: `ModelSpec` with a number, a label, or neither for the latest.

        Raises:
            CallError: no such model or version is available.
        """
        version = self._take(spec)
        try:
            yield version
        finally:
            with self._lock:
                version.calls -= 1

    def _take(self, spec):
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        number = None
        if choice == "version":
            number = spec.version.value
        elif choice == "version_label":
            number = self._labelled(spec)
        with self._lock:
            serving = [
                version
                for version in self._versions.values()
                if version.state == AVAILABLE
                and number in (None, version.number)
                and spec.name == self.name
            ]
            if serving:
                version = max(serving, key=lambda version: version.number)
                version.calls += 1
                return version
        wanted = (
            f"Latest({spec.name})"
            if number is None
            else f"Specific({spec.name}, {number})"
        )
        raise CallError(
            "NOT_FOUND", f"Servable not found for request: {wanted}"
        )

    def _labelled(self, spec):
        if spec.name != self.name or spec.version_label not in self.labels:
            raise invalid(
                f"Unrecognized servable version label: {spec.version_label}"
            )
        return self.labels[spec.version_label]

    def states(
        self, name: str, number: int | None = None
    ) -> list[tuple[int, str, CallError | None]]:
        """Returns `(number, state, error)` of versions, the newest first.

        Those that were unloaded or could not be loaded are listed, too.

        Raises:
            CallError: NOT_FOUND, no such model or version was ever seen.
        """
        with self._lock:
            found = [
                (version.number, version.state, version.error)
                for version in self._versions.values()
                if name == self.name and number in (None, version.number)
            ]
        if not found and number is None:
            raise CallError(
                "NOT_FOUND", f"Could not find any versions of model {name}"
            )
        if not found:
            raise CallError(
                "NOT_FOUND",
                f"Could not find version {number} of model {name}",
            )
        return sorted(found, key=lambda row: -row[0])


def collect_garbage() -> None:
    """Frees graphs, and spares requests the search through what stays.

    A graph's objects refer to each other, so that only the collector frees
    them; TensorFlow's own objects are so many that its search takes a good part
    of a second, and a large reply in JSON sets it off.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def read_most_rows(folder) -> int:
    """Returns how many images of a version fit into memory at once.

    By the configuration in its card; without one, as of small images.
    """
    try:
        card = json.loads(Path(folder, CARD).read_text())
        config = Config.from_dict(card["config"])
    except (OSError, ValueError, KeyError, TypeError):
        # Exported by another program, perhaps.
        return IMAGES_AT_ONCE
    return images_at_once(config.generator)


def load(folder) -> Servable:
    """Loads a version and replays its warm-up requests.

    Raises:
        Exception: whatever is wrong with it.
    """
    servable = Servable(folder)
    try:
        replay(servable, folder)
    except BaseException:
        servable.close()
        raise
    return servable
