"""Fingerprints of files and of code, a component's process, the overview."""

import importlib.metadata
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.orchestration import code
from pipeline.orchestration import files
from pipeline.orchestration.console import LiveConsole
from pipeline.orchestration.console import duration
from pipeline.orchestration.console import last_line

# === Files ===


def test_a_fingerprint_is_of_names_and_contents(tmp_path):
    def made(contents):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        return files.fingerprint(files.record(folder))

    base = made({"a": "1", "b/c": "23"})
    assert base == made({"b/c": "23", "a": "1"})
    others = [
        made({"a": "1", "b/c": "24"}),
        made({"a": "1", "b/d": "23"}),
        made({"a": "1"}),
        made({"a": "12", "b/c": "3"}),
    ]
    assert len({base, *others}) == 5


def test_a_link_counts_by_its_target(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "latest").symlink_to("one")
    before = files.record(tmp_path)
    assert set(before) == {"latest"}
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("two")
    assert files.record(tmp_path) != before


# === Code ===


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Returns a function that writes modules and gives the fingerprint."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "parts").mkdir()

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / "parts" / f"{name}.py").write_text(source)
        for cache in (code._find, code._hash, code._parse):
            cache.cache_clear()
        return code.fingerprint("parts.body:run")

    write(__init__="")
    return write


def test_code_is_what_is_imported_at_any_depth(package):
    base = package(
        body="def run():\n    from parts import one\n",
        one="from .two import f\nimport numpy",
        two="def f():\n    return 1\n",
        stranger="x = 1",
    )
    assert package(stranger="x = 2") == base
    assert package(two="def f():\n    return 2\n") != base
    assert package(two="def f():\n    return 1\n") == base
    assert package(__init__="y = 1") != base
    sources, packages = code.closure("parts.body")
    assert set(sources) == {"parts", "parts.body", "parts.one", "parts.two"}
    assert set(packages) == {"numpy"}


def test_comments_and_docstrings_are_no_code(package):
    base = package(body="class A:\n    def f(self):\n        return 1\n")
    commented = (
        '"""A module."""\n# Why.\nclass A:\n    """A class."""\n\n'
        '    def f(self):\n        """A function."""\n        return 1  # one\n'
    )
    assert package(body=commented) == base
    assert package(body=commented.replace("return 1", "return 2")) != base


def test_a_module_that_is_started_by_name_counts(package):
    package(body='command = ["python", "-m", "transgan_tf.sample"]\n')
    sources, _ = code.closure("parts.body")
    assert {"transgan_tf.sample", "transgan_tf.pictures"} <= set(sources)
    # Not what only the package's own table names.
    assert "transgan_tf.losses" not in sources


def test_the_version_of_a_package_is_part_of_the_code(package, monkeypatch):
    base = package(body="import keras\n")
    monkeypatch.setattr(code, "_version", lambda name: "99")
    assert package(body="import keras\n") != base


def test_preparing_images_does_not_depend_on_networks():
    sources, packages = code.closure("pipeline.components.example_gen")
    assert "pipeline.transforms" in sources
    assert "apache_beam" in packages
    assert not {"transgan_tf.gan", "transgan_tf.losses"} & set(sources)


def test_training_depends_on_what_its_process_imports():
    sources, packages = code.closure("pipeline.components.trainer")
    assert {"transgan_tf.gan", "transgan_tf.losses"} <= set(sources)
    assert {"keras", "numpy", "tensorflow"} <= set(packages)
    assert "pipeline.orchestration.runner" not in sources


def test_scores_depend_on_the_library_of_neighbours():
    _, packages = code.closure("pipeline.components.evaluator")
    assert packages["sklearn"] == importlib.metadata.version("scikit-learn")


# === A component's process ===

DEAF = """
import os, signal, sys, time
from pipeline.orchestration.execute import end_with
signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
end_with(int(sys.argv[1]), grace=0.05)
print("ready", flush=True)
while True:
    time.sleep(1)
"""


def test_a_process_that_does_not_end_is_killed_with_its_launcher():
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", DEAF, str(reading)],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(reading,),
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    os.close(writing)
    told, _ = process.communicate(timeout=30)
    os.close(reading)
    assert (told, process.returncode) == ("told\n", -9)


# === The overview ===


def test_the_overview_shows_states_times_and_the_log(tmp_path):
    log = tmp_path / "2.log"
    log.write_bytes(b"starts\n 10 %\r 20 % [of it]\n")
    console = Console(file=io.StringIO(), force_terminal=True, width=90)
    with LiveConsole(["ExampleGen", "Trainer", "Pusher"], console) as live:
        live.state("ExampleGen", "cached", "execution 1")
        live.state("Trainer", "running", "never ran before")
        live.tick("Trainer", log)
        live.say("a line [of its own]")
    told = console.file.getvalue()
    assert "a line [of its own]" in told
    assert "Trainer: never ran before" in told
    last = told[told.rindex("component") :]
    rows = [line.split() for line in plain(last).splitlines()]
    assert ["ExampleGen", "cached", "execution", "1"] in rows
    (row,) = [row for row in rows if row[:1] == ["Trainer"]]
    assert row[1] == "running" and row[-4:] == ["20", "%", "[of", "it]"]
    assert ["Pusher"] in rows


def plain(text):
    from rich.text import Text

    return Text.from_ansi(text).plain


def test_the_last_line_of_a_log(tmp_path):
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_bytes(b"x" * 9999 + b"\n\nlast one\r\n\n")
    assert last_line(log) == "last one"
    assert last_line(Path(tmp_path, "none")) == ""


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(3.21, "3.2 s"), (75, "1:15"), (3599.7, "1:00:00"), (7384, "2:03:04")],
)
def test_durations(seconds, told):
    assert duration(seconds) == told
