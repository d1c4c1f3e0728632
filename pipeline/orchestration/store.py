"""The record of runs, executions and artifacts: `metadata.sqlite`.

The one module that reads and writes it. The terms are ML Metadata's. Times are
UTC, as ISO 8601; an artifact's URI is its folder below the pipeline's root.
"""

import json
import os
import socket
from datetime import UTC
from datetime import datetime

from pipeline.orchestration.database import Database
from pipeline.orchestration.layout import Layout
from pipeline.orchestration.records import COMPLETE
from pipeline.orchestration.records import INTERRUPTED
from pipeline.orchestration.records import RUNNING
from pipeline.orchestration.records import Execution
from pipeline.orchestration.records import Run
from pipeline.orchestration.records import StoredArtifact
from pipeline.orchestration.records import from_row


class Store:
    """The record below a pipeline's root.

    Args:
        root: the pipeline's root.
        create: whether to make what is missing.

    Raises:
        StoreError: there is none, it is damaged or of a newer version, or
            cannot be written.
    """

    def __init__(self, root, create: bool = False):
        self.layout = Layout(root)
        self._database = Database(self.layout, create)

    @staticmethod
    def exists(root) -> bool:
        """Tells whether there is a record below a root."""
        return Layout(root).database.is_file()

    def close(self) -> None:
        self._database.close()

    # === Reading ===

    def runs(self) -> list[Run]:
        """Returns all, from old to new."""
        return self._database.read(Run, "SELECT * FROM runs ORDER BY id")

    def run(self, run: int) -> Run | None:
        return self._database.one(Run, "SELECT * FROM runs WHERE id = ?", run)

    def execution(self, execution: int) -> Execution | None:
        query = "SELECT * FROM executions WHERE id = ?"
        return self._database.one(Execution, query, execution)

    def executions_of(self, run: int) -> list[tuple[Execution, bool]]:
        """Returns a run's executions in order, and which were cached."""
        query = "SELECT * FROM run_executions WHERE run = ? ORDER BY rowid"
        return [
            (self.execution(row["execution"]), bool(row["cached"]))
            for row in self._database.rows(query, run)
        ]

    def runs_of(self, execution: int) -> list[Run]:
        """Returns the runs that an execution was part of, from old to new."""
        query = (
            "SELECT runs.* FROM runs JOIN run_executions ON run = runs.id "
            "WHERE execution = ? ORDER BY runs.id"
        )
        return self._database.read(Run, query, execution)

    def artifact(self, artifact: int) -> StoredArtifact | None:
        query = "SELECT * FROM artifacts WHERE id = ?"
        return self._database.one(StoredArtifact, query, artifact)

    def artifacts_of_type(self, kind: str) -> list[StoredArtifact]:
        """Returns all of a type, from new to old."""
        query = "SELECT * FROM artifacts WHERE type = ? ORDER BY id DESC"
        return self._database.read(StoredArtifact, query, kind)

    def users(self, artifact: int) -> list[Execution]:
        """Returns the executions that had an artifact as an input, in order."""
        query = (
            "SELECT DISTINCT executions.* FROM executions JOIN inputs "
            "ON execution = executions.id WHERE artifact = ? "
            "ORDER BY executions.id"
        )
        return self._database.read(Execution, query, artifact)

    def outputs(self, execution: int) -> dict[str, StoredArtifact]:
        query = "SELECT * FROM artifacts WHERE execution = ? ORDER BY id"
        found = self._database.read(StoredArtifact, query, execution)
        return {artifact.output: artifact for artifact in found}

    def inputs(self, execution: int) -> dict[str, StoredArtifact]:
        """Returns them by key, without those that were None."""
        query = "SELECT * FROM inputs WHERE execution = ? ORDER BY rowid"
        rows = self._database.rows(query, execution)
        return {row["key"]: self.artifact(row["artifact"]) for row in rows}

    def with_key(self, key: str) -> Execution | None:
        """Returns the newest execution with a cache key."""
        query = "SELECT * FROM executions WHERE cache_key = ? ORDER BY id DESC"
        return self._database.one(Execution, query, key)

    def executions(self, component: str, dataset: str) -> list[Execution]:
        """Returns a component's, in runs of a dataset, from new to old."""
        query = (
            "SELECT * FROM executions WHERE component = ? AND id IN ("
            "SELECT execution FROM run_executions JOIN runs ON run = runs.id "
            "WHERE dataset = ?) ORDER BY id DESC"
        )
        return self._database.read(Execution, query, component, dataset)

    def judged(
        self, made: tuple[str, str], judge: tuple[str, str], dataset: str
    ) -> list[tuple[StoredArtifact, dict]]:
        """Returns artifacts with what was said of them, from new to old.

        Of one that was made twice alike, what was said of either counts.

        Args:
            made: component and output of the artifacts.
            judge: component that had them as an input, and its output, of
                which the properties are returned.
            dataset: of the runs in which they were judged.
        """
        query = (
            "SELECT DISTINCT a.*, said.properties AS said FROM artifacts a "
            "JOIN executions maker ON maker.id = a.execution "
            "JOIN artifacts seen ON seen.fingerprint = a.fingerprint "
            "AND seen.output = a.output "
            "JOIN inputs ON inputs.artifact = seen.id "
            "JOIN executions judge ON judge.id = inputs.execution "
            "JOIN artifacts said ON said.execution = judge.id "
            "JOIN run_executions r ON r.execution = judge.id "
            "JOIN runs ON runs.id = r.run "
            "WHERE maker.component = ? AND a.output = ? "
            "AND judge.component = ? AND said.output = ? AND runs.dataset = ? "
            "ORDER BY a.id DESC"
        )
        return [
            (from_row(StoredArtifact, row), json.loads(row["said"]))
            for row in self._database.rows(query, *made, *judge, dataset)
        ]

    # === Writing ===

    def start_run(self, dataset: str, options: dict) -> int:
        """Notes a new run; returns its number.

        Runs and executions of this host whose launcher is gone were
        interrupted.
        """
        with self._database.writing() as write:
            for table in ("runs", "executions"):
                _note_dead(write, table)
            values = (dataset, _text(options), now(), RUNNING, *_here())
            return write(
                "INSERT INTO runs (dataset, options, started, status, host, "
                "pid) VALUES (?, ?, ?, ?, ?, ?)",
                values,
            ).lastrowid

    def finish_run(self, run: int, status: str, summary: str) -> None:
        with self._database.writing() as write:
            write(
                "UPDATE runs SET status = ?, summary = ?, finished = ? "
                "WHERE id = ?",
                (status, summary, now(), run),
            )

    def use(self, run: int, execution: int) -> None:
        """Notes that a run found an execution in the cache."""
        with self._database.writing() as write:
            _join(write, run, execution, cached=True)

    def begin(
        self,
        run: int,
        component: str,
        key: str,
        parameters: dict,
        settings: dict,
        code: str,
        inputs: dict[str, StoredArtifact],
        previous: int | None,
    ) -> int:
        """Notes that an execution starts, or goes on; returns its number.

        Args:
            inputs: without those that are None.
            previous: the number of the execution that goes on.
        """
        with self._database.writing() as write:
            if previous is None:
                previous = write(
                    "INSERT INTO executions (component, cache_key, status, "
                    "parameters, settings, code, started, host, pid) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (component, key, RUNNING, _text(parameters))
                    + (_text(settings), code, now(), *_here()),
                ).lastrowid
            else:
                write(
                    "UPDATE executions SET status = ?, settings = ?, host = ?, "
                    "pid = ?, finished = NULL, error = NULL WHERE id = ?",
                    (RUNNING, _text(settings), *_here(), previous),
                )
                write("DELETE FROM inputs WHERE execution = ?", (previous,))
            for name, artifact in inputs.items():
                write(
                    "INSERT INTO inputs VALUES (?, ?, ?)",
                    (previous, name, artifact.id),
                )
            _join(write, run, previous, cached=False)
        return previous

    def publish(self, execution: int, outputs: dict[str, dict]) -> None:
        """Notes that an execution is complete, with what it made.

        Args:
            outputs: type, uri, fingerprint, properties and files of each.
        """
        with self._database.writing() as write:
            for output, made in outputs.items():
                write(
                    "INSERT INTO artifacts (execution, output, type, uri, "
                    "fingerprint, properties, files) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (execution, output, made["type"], made["uri"])
                    + (made["fingerprint"], _text(made["properties"]))
                    + (_text(made["files"]),),
                )
            _end(write, execution, COMPLETE, None)

    def stop(self, execution: int, status: str, error: str | None) -> None:
        """Notes that an execution ended before it was complete."""
        with self._database.writing() as write:
            _end(write, execution, status, error)


def _note_dead(write, table):
    query = f"SELECT id, pid FROM {table} WHERE status = ? AND host = ?"
    for row in write(query, (RUNNING, socket.gethostname())).fetchall():
        if not _is_alive(row["pid"]):
            values = (INTERRUPTED, row["id"])
            write(f"UPDATE {table} SET status = ? WHERE id = ?", values)


def _join(write, run, execution, cached):
    write(
        "INSERT OR REPLACE INTO run_executions VALUES (?, ?, ?)",
        (run, execution, cached),
    )


def _end(write, execution, status, error):
    write(
        "UPDATE executions SET status = ?, error = ?, finished = ? "
        "WHERE id = ?",
        (status, error, now(), execution),
    )


def _text(value):
    return json.dumps(value, sort_keys=True)


def _here():
    return socket.gethostname(), os.getpid()


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def now() -> str:
    """Returns the time as the record has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
