"""The SQLite file below a pipeline's root: its tables, and how it is opened.

`pipeline.orchestration.store` alone uses it.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from urllib.parse import quote

from pipeline.orchestration.layout import Layout
from pipeline.orchestration.layout import shown
from pipeline.orchestration.records import from_row
from transgan_tf.checked import UserError

_VERSION = 1
# Seconds to wait for other launchers, which write for milliseconds.
_PATIENCE = 60
_TABLES = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, dataset TEXT NOT NULL,
    options TEXT NOT NULL, started TEXT NOT NULL, finished TEXT,
    status TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    summary TEXT);
CREATE TABLE executions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, component TEXT NOT NULL,
    cache_key TEXT NOT NULL, status TEXT NOT NULL, parameters TEXT NOT NULL,
    settings TEXT NOT NULL, code TEXT NOT NULL, started TEXT NOT NULL,
    finished TEXT, host TEXT NOT NULL, pid INTEGER NOT NULL, error TEXT);
CREATE TABLE artifacts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    execution INTEGER NOT NULL REFERENCES executions, output TEXT NOT NULL,
    type TEXT NOT NULL, uri TEXT NOT NULL, fingerprint TEXT NOT NULL,
    properties TEXT NOT NULL, files TEXT NOT NULL,
    UNIQUE (execution, output));
CREATE TABLE inputs (
    execution INTEGER NOT NULL REFERENCES executions, key TEXT NOT NULL,
    artifact INTEGER NOT NULL REFERENCES artifacts,
    PRIMARY KEY (execution, key));
CREATE TABLE run_executions (
    run INTEGER NOT NULL REFERENCES runs,
    execution INTEGER NOT NULL REFERENCES executions,
    cached INTEGER NOT NULL, PRIMARY KEY (run, execution));
CREATE INDEX executions_by_key ON executions (cache_key);
CREATE INDEX artifacts_by_fingerprint ON artifacts (fingerprint);
CREATE INDEX inputs_by_artifact ON inputs (artifact);
"""
_NO_RECORD = (
    "{} holds no pipeline's record: give the --pipeline_root of "
    "`python -m pipeline.run`"
)


class StoreError(UserError):
    """A pipeline's root whose record cannot be read or written."""


class Database:
    """Reads rows and writes in transactions; says in a sentence what fails.

    Args:
        layout: of the pipeline's root.
        create: whether to make what is missing.

    Raises:
        StoreError: there is none, it is damaged or of a newer version, or
            cannot be written.
    """

    def __init__(self, layout: Layout, create: bool):
        self.layout = layout
        self.path = self.layout.database
        with self._told():
            if create:
                self.layout.system.mkdir(parents=True, exist_ok=True)
            elif not self.path.is_file():
                raise StoreError(_NO_RECORD.format(shown(self.layout.root)))
            self._connection = self._connect(create)
            try:
                self._prepare(create)
            except BaseException:
                self.close()
                raise

    def _connect(self, create):
        mode = "rwc" if create else "rw"
        uri = f"file:{quote(str(self.path))}?mode={mode}"
        connection = sqlite3.connect(
            uri, uri=True, timeout=_PATIENCE, isolation_level=None
        )
        connection.row_factory = sqlite3.Row
        return connection

    def _prepare(self, create):
        """Checks the record's version; makes the tables of a new one."""
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.execute("PRAGMA synchronous = FULL")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise StoreError(
                f"{shown(self.path)} was written by a newer version of this "
                "project: update it, or give another --pipeline_root"
            )
        if version == 0 and not create:
            raise StoreError(_NO_RECORD.format(shown(self.layout.root)))
        if version == 0:
            with self.writing() as write:
                # Another launcher may have been faster.
                if write("PRAGMA user_version").fetchone()[0] == 0:
                    for statement in _TABLES.split(";"):
                        write(statement)
                    write(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what SQLite says into one sentence."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise StoreError(
                    f"{shown(self.path)} is being written by another process: "
                    "start again when that has ended"
                ) from None
            raise StoreError(
                f"{shown(self.path)} cannot be used ({error}): make room, give "
                "yourself permission, or choose another --pipeline_root"
            ) from None
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{shown(self.path)} is damaged ({error}): move it away, and "
                "the pipeline begins anew, or choose another --pipeline_root"
            ) from None
        except OSError as error:
            raise StoreError(
                f"{shown(self.layout.root)} cannot be written "
                f"({error.strerror}): choose another --pipeline_root, or give "
                "yourself permission"
            ) from None

    @contextlib.contextmanager
    def writing(self):
        """One transaction: all of it or nothing. Gives `execute`."""
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself where the disk is full.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, *values) -> list[sqlite3.Row]:
        with self._told():
            return self._connection.execute(query, values).fetchall()

    def read(self, kind: type, query: str, *values) -> list:
        """Returns rows as records of a kind."""
        return [from_row(kind, row) for row in self.rows(query, *values)]

    def one(self, kind: type, query: str, *values):
        """Returns the first row as a record, or None."""
        return next(iter(self.read(kind, query, *values)), None)
