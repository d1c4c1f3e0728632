"""What a pipeline's runner executes, takes from the cache, and tells."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from pipeline.orchestration.database import StoreError
from pipeline.orchestration.records import COMPLETE
from pipeline.orchestration.records import FAILED
from pipeline.orchestration.store import Store
from tests import tiny_pipeline
from tests.tiny_components import SAVED_MODEL

ALL = ["ExampleGen", "Trainer", "Evaluator", "Pusher"]


class World:
    """A folder with a source, a pipeline's root, and what was called."""

    def __init__(self, folder, capsys=None):
        self.folder = folder
        self.root = folder / "root"
        self.capsys = capsys
        self.source = folder / "source"
        self.source.write_text("digits")

    def values(self, **changes):
        paths = {"source": self.source, "folder": self.folder}
        paths |= {"pipeline_root": self.root}
        return {k: str(v) for k, v in paths.items()} | changes

    def run(self, **changes):
        """Runs the pipeline here; returns status and what was called."""
        (self.folder / "calls").unlink(missing_ok=True)
        status = tiny_pipeline.main(self.values(**changes))
        self.told, self.error = self.capsys.readouterr()
        return status, self.calls()

    def calls(self):
        path = self.folder / "calls"
        return path.read_text().split() if path.exists() else []

    def versions(self):
        """Returns the contents of the pushed versions, from old to new."""
        folders = (self.folder / "versions").glob("*")
        ordered = sorted(folders, key=lambda folder: int(folder.name))
        return [(path / "saved_model.pb").read_text() for path in ordered]

    def output(self, name):
        """Returns the newest folder of an output such as `Trainer/model`."""
        folders = (self.root / name).iterdir()
        return max(folders, key=lambda folder: int(folder.name))

    def store(self):
        return Store(self.root)


@pytest.fixture
def world(tmp_path, capsys):
    return World(tmp_path, capsys)


# === The cache ===


def test_only_what_depends_on_a_change_runs_again(world):
    assert world.run() == (0, ALL)
    told = f"pushed as version 1: {world.folder}/versions/1\nreason: enough"
    assert told in world.told
    assert world.run() == (0, [])
    assert "nothing to do, all is in the cache" in world.told
    assert "pushed as version 1" in world.told
    assert world.run(verbose=True) == (0, [])
    assert world.run(steps=5) == (0, ALL[1:])
    assert "since execution 2: steps: 3 -> 5" in world.told
    assert world.versions() == ["digits: 3 steps", "digits: 5 steps"]
    # The same content from elsewhere: what follows stays in the cache.
    other = world.folder / "other"
    other.write_text("digits")
    assert world.run(steps=5, source=str(other)) == (0, ["ExampleGen"])


def test_the_last_approved_model_is_the_baseline(world):
    def baseline():
        return (world.output("Evaluator/blessing") / "baseline.txt").read_text()

    world.run(until="Evaluator")
    assert baseline() == "none"
    # Too few to be blessed, so it is nobody's baseline.
    assert world.run(steps=2, least=3, until="Evaluator")[1] == ALL[1:3]
    assert baseline() == "digits: 3 steps"
    world.run(steps=4, until="Evaluator")
    assert baseline() == "digits: 3 steps"
    world.run(steps=7, until="Evaluator")
    assert baseline() == "digits: 4 steps"
    # The model is the newest one that was approved, but its own no baseline.
    assert world.run(steps=7, until="Evaluator") == (0, [])
    world.run(steps=7, dataset="other", until="Evaluator")
    assert baseline() == "none"


@pytest.mark.parametrize("how", ["deleted", "truncated", "strange"])
def test_a_damaged_output_is_made_again(how, world):
    world.run(until="Trainer")
    path = world.root / "ExampleGen/examples/1/data.txt"
    if how == "deleted":
        path.unlink()
        sentence = "examples/data.txt is missing"
    elif how == "truncated":
        os.truncate(path, 2)
        sentence = "examples/data.txt has 2 bytes instead of 6"
    else:
        (path.parent / "more.txt").touch()
        sentence = "examples/more.txt was put there"
    assert world.run(until="Trainer") == (0, ["ExampleGen"])
    assert f"of execution 1, {sentence}: it is made again" in world.told
    assert world.run(until="Trainer") == (0, [])


def test_a_version_that_was_removed_is_pushed_again(world):
    world.run()
    shutil.rmtree(world.folder / "versions" / "1")
    assert world.run(dry_run=True) == (0, [])
    assert "versions/1 is missing: it is made again" in world.told
    assert world.run(require_push=True) == (0, ["Pusher"])
    assert world.versions() == ["digits: 3 steps"]
    assert world.run() == (0, [])


def test_going_back_to_other_parameters_pushes_again(world):
    for steps in (3, 5, 3, 5):
        world.run(steps=steps)
    assert "it is old: it is made again" in world.told
    made = [f"digits: {steps} steps" for steps in (3, 5, 3, 5)]
    assert world.versions() == made
    assert world.run(steps=5) == (0, [])


def test_what_may_pass_is_tried_again(world):
    busy = world.folder / "busy"
    busy.touch()
    assert world.run() == (0, ALL)
    assert "nothing was pushed" in world.told
    # As long as it does not pass, what depends on it stays in the cache.
    assert world.run() == (0, ["Evaluator"])
    assert "blessing may come out otherwise now: it is made" in world.told
    busy.unlink()
    assert world.run() == (0, ALL[2:])
    assert world.versions() == ["digits: 3 steps"]
    assert world.run() == (0, [])


def test_what_others_add_to_a_run_is_no_damage(world):
    world.run()
    path = world.output("Trainer/model_run") / "steps.txt"
    with open(path, "a") as file:
        file.write("scored\n")
    (path.parent / "notes").mkdir()
    (path.parent / "notes" / "1").touch()
    # Left behind by a desktop, or by a network file system.
    (path.parent / ".nfs0001").touch()
    assert world.run() == (0, [])
    os.truncate(path, 1)
    assert world.run()[1][0] == "Trainer"


def test_a_damaged_model_is_no_baseline(world):
    world.run(until="Evaluator")
    (world.output("Trainer/model") / SAVED_MODEL).unlink()
    world.run(steps=5, until="Evaluator")
    told = world.output("Evaluator/blessing") / "baseline.txt"
    assert told.read_text() == "none"


# === Failures ===


def test_an_error_of_the_users_is_one_sentence(world):
    assert world.run(trouble="refuse") == (1, ALL[:2])
    sentence, log = world.error.splitlines()
    assert sentence == "error: Trainer failed: the images are upside down"
    assert log.startswith("its log is ")
    assert "upside down" in Path(log.removeprefix("its log is ")).read_text()
    store = world.store()
    (run,) = store.runs()
    assert (run.status, run.summary) == (FAILED, sentence[len("error: ") :])
    executions = [made for made, _ in store.executions_of(run.id)]
    assert [e.status for e in executions] == [COMPLETE, FAILED]
    assert executions[1].error == "the images are upside down"
    store.close()
    # It goes on where it stopped: same execution, with its first step.
    assert world.run() == (0, ALL[1:])
    assert "goes on     execution 2" in world.told
    assert (world.root / "Trainer/model_run/2/steps.txt").read_text() == (
        "0\n1\n2\n"
    )


def test_an_error_of_ours_shows_the_end_of_the_log(world):
    assert world.run(trouble="crash")[0] == 1
    sentence, log, *lines = world.error.splitlines()
    assert sentence == (
        "error: Trainer failed: ZeroDivisionError: of all things"
    )
    assert lines[-1] == "  ZeroDivisionError: of all things"
    assert any("tiny_components.py" in line for line in lines)


def test_a_process_that_is_killed_goes_on_by_the_same_command(world):
    assert world.run(trouble="die")[0] == 1
    assert "killed by SIGKILL, perhaps since memory ran out" in world.error
    assert "the same command goes on" in world.error
    assert world.run() == (0, ALL[1:])
    assert (
        "goes on at 1"
        in (world.root / ".system/logs/Trainer/2.log").read_text()
    )


def test_a_finished_process_is_not_repeated(world):
    """Its launcher may die between its end and the record."""
    world.run()
    store = world.store()
    with store._database.writing() as write:
        write("DELETE FROM inputs")
        write("DELETE FROM artifacts")
        write("UPDATE executions SET status = 'running'")
    store.close()
    assert world.run() == (0, [])
    assert len(world.versions()) == 1
    assert world.run() == (0, [])
    assert "nothing to do" in world.told


# === Flags ===


def test_from_executes_anew_and_until_leaves_out(world):
    told = world.run(from_="Evaluator")
    assert told == (1, [])
    assert "ExampleGen is not there (never ran before)" in world.error
    sentence = world.error
    assert world.run(from_="Evaluator", dry_run=True) == (1, [])
    assert (world.error, world.told) == (sentence, "")
    assert world.run(until="Trainer") == (0, ALL[:2])
    assert "ended after Trainer" in world.told
    assert world.run(from_="Trainer", until="Trainer") == (0, ["Trainer"])
    # From the beginning, not from what the execution before left.
    assert "starts" in (world.root / ".system/logs/Trainer/3.log").read_text()
    assert world.run(from_="Trainr")[0] == 1
    assert "did you mean 'Trainer'?" in world.error
    assert world.run(from_="Pusher", until="Trainer")[0] == 1
    assert "--until=Trainer comes before --from=Pusher" in world.error


def test_an_interrupted_from_goes_on_without_it(world):
    def log(execution):
        path = world.root / f".system/logs/Trainer/{execution}.log"
        return path.read_text()

    world.run(until="Trainer")
    assert world.run(from_="Trainer", trouble="refuse")[0] == 1
    # Said again, it means from the beginning.
    assert world.run(from_="Trainer", trouble="refuse")[0] == 1
    assert log(4).startswith("starts")
    assert world.run(until="Trainer") == (0, ["Trainer"])
    assert "goes on at 1" in log(4)
    assert world.run(until="Trainer") == (0, [])


def test_dry_run_tells_what_and_why_and_writes_nothing(world):
    def told():
        lines = world.told.splitlines()[:-1]
        return [line.split(maxsplit=1) for line in lines]

    assert world.run(dry_run=True) == (0, [])
    assert told()[0] == ["ExampleGen", "would run   never ran before"]
    assert not world.root.exists()
    world.run(trouble="refuse", until="Trainer")
    before = world.root.joinpath("metadata.sqlite").read_bytes()
    world.run(dry_run=True, least=9)
    assert told() == [
        ["ExampleGen", "cached      execution 1"],
        ["Trainer", "would go on execution 2 (failed)"],
        ["Evaluator", "would run   never ran before"],
        ["Pusher", "would run   never ran before"],
    ]
    assert before == world.root.joinpath("metadata.sqlite").read_bytes()
    world.run()
    world.run(dry_run=True, steps=4, least=2)
    assert told()[1:] == [
        ["Trainer", "would run   since execution 2: steps: 3 -> 4"],
        ["Evaluator", "would run   since execution 3: least: 0 -> 2"],
        ["Pusher", "unknown     depends on what Trainer makes"],
    ]


def test_a_model_that_is_not_blessed_is_not_pushed(world):
    assert world.run(least=4) == (0, ALL)
    assert "nothing was pushed\nreason: not blessed: too few" in world.told
    assert world.run(least=4, require_push=True) == (1, [])
    assert world.versions() == []
    assert world.run(require_push=True) == (0, ALL[2:])


# === A root that cannot be used ===


def newer(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def damaged(path):
    path.write_bytes(b"\0garbage" * 999)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (newer, "was written by a newer version of this project"),
        (damaged, "is damaged (file is not a database): move it away"),
    ],
)
def test_a_record_that_cannot_be_read(harm, sentence, world):
    world.root.mkdir()
    harm(world.root / "metadata.sqlite")
    assert world.run() == (1, [])
    assert sentence in world.error
    assert len(world.error.splitlines()) == 1


def test_a_record_that_another_process_writes(world, monkeypatch):
    assert world.run() == (0, ALL)
    monkeypatch.setattr("pipeline.orchestration.database._PATIENCE", 0.01)
    connection = sqlite3.connect(world.root / "metadata.sqlite")
    connection.execute("BEGIN IMMEDIATE")
    assert world.run() == (1, [])
    assert "is being written by another process: start again" in world.error
    assert len(world.error.splitlines()) == 1
    connection.close()
    assert world.run() == (0, [])


def test_a_record_without_tables_is_none(tmp_path):
    (tmp_path / "metadata.sqlite").touch()
    with pytest.raises(StoreError, match="holds no pipeline's record: give"):
        Store(tmp_path)
    Store(tmp_path, create=True).close()
    Store(tmp_path).close()


def test_a_root_that_cannot_be_written(world):
    world.root.write_text("a file")
    assert world.run() == (1, [])
    assert "root cannot be written (" in world.error
    assert len(world.error.splitlines()) == 1
