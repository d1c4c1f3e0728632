"""What all sources of images have in common."""

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import apache_beam as beam

from pipeline.transform import LARGEST_FILE
from transgan_tf.checked import UserError
from transgan_tf.manifest import SourceFacts

# Images of one task: enough to make a task's own cost small, few enough to
# share a small dataset between workers.
TASK_SIZE = 32


class SourceError(UserError):
    """A source that cannot be read at all; its text is one sentence."""


class Item(NamedTuple):
    """One image of a source.

    Attributes:
        key: its name, the same wherever the source lies.
        data: the file's bytes.
        label: its class, or None.
        error: why `data` could not be had, or None.
    """

    key: str
    data: bytes = b""
    label: int | None = None
    error: str | None = None


class Listed(NamedTuple):
    """One line of a source's listing.

    Attributes:
        key: of the item.
        size: in bytes, and what else the listing tells of the content.
        locator: where it is; a task is a list of them.
    """

    key: str
    size: int | tuple
    locator: object


class Source:
    """Where images come from; travels to the workers by pickle.

    Attributes:
        kind: how `--source_type` calls it.
        folders_are_classes: whether a key's folder may be a label.
        classes: names of the labels that items carry.
    """

    kind = ""
    folders_are_classes = False
    classes: tuple[str, ...] = ()

    def listing(self) -> Iterator[Listed]:
        """Yields what there is, in an order of its own.

        Raises:
            SourceError: the source cannot be listed.
        """
        raise NotImplementedError

    def modified(self) -> float:
        """Returns when the source changed last, in seconds since 1970."""
        raise NotImplementedError

    def list_tasks(self) -> Iterator[list]:
        """Yields lists of locators, each to be read by one worker."""
        locators = (listed.locator for listed in self.listing())
        while task := list(islice(locators, TASK_SIZE)):
            yield task

    def read(self, task) -> Iterator[Item]:
        """Yields the items of a task."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes what `read` opened and kept open."""

    def tasks(self) -> beam.PTransform:
        """Returns a transform from the pipeline to all tasks."""
        return ListTasks(self)

    def facts(self) -> SourceFacts:
        """Returns number and digest of the keys and sizes, in any order."""
        lines = sorted(
            f"{listed.size} {listed.key}".encode("utf-8", "surrogateescape")
            for listed in self.listing()
        )
        digest = hashlib.sha256(b"\0".join(lines)).hexdigest()
        return SourceFacts(self.kind, len(lines), digest)


class ListTasks(beam.PTransform):
    """Lists a source on a worker and shares the tasks out."""

    def __init__(self, source: Source):
        super().__init__()
        self.source = source

    def expand(self, pipeline):
        return (
            pipeline
            | "The source" >> beam.Create([self.source])
            | "List" >> beam.FlatMap(lambda source: source.list_tasks())
            # Without it one worker would do all that it listed.
            | "Share out" >> beam.Reshuffle()
        )


def too_large(size: int) -> str | None:
    """Returns why a file of so many bytes is not read, or None."""
    return f"it has {size:,} bytes" if size > LARGEST_FILE else None


def as_key(name: str) -> str:
    """Returns a file's name as text that is always UTF-8.

    A byte of a name on disk that is not shows as `\\xff`.
    """
    content = name.encode("utf-8", "surrogateescape")
    return content.decode("utf-8", "backslashreplace")


def is_unsafe(name: str) -> bool:
    """Tells whether an archive's name points out of the archive."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or "\0" in name
