"""What is known of runs, executions and artifacts, as plain records.

The terms are ML Metadata's. Times are UTC, as ISO 8601.
"""

import json
import sqlite3
from dataclasses import dataclass
from dataclasses import fields

RUNNING, COMPLETE = "running", "complete"
FAILED, INTERRUPTED = "failed", "interrupted"


@dataclass(frozen=True)
class Run:
    """One call of the pipeline; `options` are its command line's.

    Attributes:
        status: running, complete, failed or interrupted.
        finished, summary: None while it runs, and of one that was killed.
    """

    id: int
    dataset: str
    options: dict
    started: str
    finished: str | None
    status: str
    host: str
    pid: int
    summary: str | None


@dataclass(frozen=True)
class Execution:
    """One call of a component's function, with those that went on with it.

    Attributes:
        status: running, complete, failed or interrupted; "running" also of one
            that was killed, until the next run on the same host.
        code: fingerprint of the component's code.
        pid: of the launcher.
        error: the sentence why it failed.
    """

    id: int
    component: str
    cache_key: str
    status: str
    parameters: dict
    settings: dict
    code: str
    started: str
    finished: str | None
    host: str
    pid: int
    error: str | None


@dataclass(frozen=True)
class StoredArtifact:
    """An output of a complete execution.

    Attributes:
        uri: its folder, from the pipeline's root on.
        files: `[bytes, SHA-256]` by name in the folder.
    """

    id: int
    execution: int
    output: str
    type: str
    uri: str
    fingerprint: str
    properties: dict
    files: dict


def from_row(kind: type, row: sqlite3.Row):
    """Makes a dataclass of a table's row, where plain data is JSON."""
    values = {}
    for field in fields(kind):
        value = row[field.name]
        values[field.name] = json.loads(value) if field.type is dict else value
    return kind(**values)
