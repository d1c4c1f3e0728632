"""A pipeline that is interrupted or killed, and two at once."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from pipeline.orchestration.records import INTERRUPTED
from tests.test_orchestration import ALL
from tests.test_orchestration import World

# Of a training that is not meant to come to its end.
ENDLESS = {"steps": 10_000, "pace": 0.01}


@pytest.fixture
def world(tmp_path, capsys):
    return World(tmp_path, capsys)


@pytest.fixture
def start(world):
    """Returns a function that starts a launcher in a process of its own."""
    started = []

    def begin(**changes):
        words = json.dumps(world.values(**changes))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.tiny_pipeline", words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition, process=None):
    """Waits until something holds, which takes moments."""
    end = time.monotonic() + 30
    while not condition():
        if process is not None:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def steps(world):
    return next(world.root.glob("Trainer/model_run/*/steps.txt"), None)


def is_training(world):
    """Returns a function that tells whether a step was made, and all after."""
    return lambda: steps(world) and steps(world).read_text().count("\n") > 1


def children(pid):
    """Returns the processes of an execution that a launcher has."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def is_gone(pid):
    """Tells whether a process has ended; one that nobody reaps has, too."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_signal_lets_the_component_save(number, status, world, start):
    process = start(**ENDLESS)
    wait_for(is_training(world), process)
    process.send_signal(number)
    _, error = process.communicate()
    assert process.returncode == status
    assert error.endswith(f"{number.name}: the same command goes on\n")
    assert len(error.splitlines()) == 1
    assert (steps(world).parent / "saved").exists()
    store = world.store()
    assert [run.status for run in store.runs()] == [INTERRUPTED]
    assert store.execution(2).status == INTERRUPTED
    store.close()
    # The trainer finds its steps, and has no more to do.
    done = len(steps(world).read_text().splitlines())
    steps(world).write_text("".join(f"{n}\n" for n in range(10_000)))
    assert done > 0
    assert world.run(**ENDLESS)[1] == ["Trainer", "Evaluator", "Pusher"]
    assert world.versions() == ["digits: 10000 steps"]


def test_a_second_signal_ends_a_component_that_is_deaf(world, start):
    process = start(**ENDLESS, trouble="deaf")
    wait_for(is_training(world), process)
    (child,) = children(process.pid)
    process.send_signal(signal.SIGINT)
    count = len(steps(world).read_text())
    wait_for(lambda: len(steps(world).read_text()) > count + 50, process)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert is_gone(child)


def test_a_component_ends_with_its_launcher(world, start):
    process = start(**ENDLESS)
    wait_for(is_training(world), process)
    (child,) = children(process.pid)
    process.kill()
    process.communicate()
    wait_for(lambda: is_gone(child))
    # It was let save, and the lock is free.
    assert (steps(world).parent / "saved").exists()
    count = len(steps(world).read_text().splitlines())
    assert world.run(steps=count, until="Trainer") == (0, ["Trainer"])
    store = world.store()
    assert [run.status for run in store.runs()][0] == INTERRUPTED
    store.close()


def test_who_saves_for_long_is_waited_for(world, start):
    """A new run begins when the old one's process is gone."""
    first = start(**ENDLESS, trouble="deaf")
    wait_for(is_training(world), first)
    (child,) = children(first.pid)
    first.kill()
    first.communicate()
    second = start(**ENDLESS)
    line = ""
    while "waits" not in line:
        line = second.stdout.readline()
    assert f"for run 1, process {first.pid}" in line
    assert not is_gone(child)
    assert world.calls() == ["ExampleGen", "Trainer"]
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: len(world.calls()) == 3, second)
    second.send_signal(signal.SIGTERM)
    out, _ = second.communicate()
    assert "goes on     execution 2" in out


def test_of_two_runs_at_once_one_works(world, start):
    """The other says so, and finds in the cache what was made."""
    first = start(steps=30, pace=0.01)
    wait_for(is_training(world), first)
    second = start(steps=30, pace=0.01)
    (one, _), (other, _) = first.communicate(), second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert f"waits       for run 1, process {first.pid}" in other
    assert sorted(world.calls()) == sorted(ALL)
    assert world.versions() == ["digits: 30 steps"]
    assert "pushed as version 1" in one and "pushed as version 1" in other


def test_other_datasets_run_side_by_side(world, start):
    one = start(**ENDLESS)
    wait_for(is_training(world), one)
    other = world.folder / "photos"
    other.write_text("photos")
    told = world.run(source=str(other), dataset="photos")
    assert told[0] == 0
    assert one.poll() is None
    assert "waits" not in world.told
    assert world.versions() == ["photos: 3 steps"]


def progress(world):
    """Returns how many components were called and steps were made, in all."""
    made = steps(world)
    return len(world.calls()) + (made.read_text().count("\n") if made else 0)


def kill(process, whole):
    """Kills a launcher, a component, or both, as the number says."""
    (child,) = children(process.pid)
    victims = {0: [process.pid], 1: [child], 2: [process.pid, child]}
    for pid in victims[whole]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    # Of its own signal, or of its component's end.
    assert process.returncode == (1 if whole == 1 else -signal.SIGKILL)
    wait_for(lambda: is_gone(child))


def seeds():
    """One for every run of the tests, and ten for a long one."""
    return [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 11))]


@pytest.mark.parametrize("seed", seeds())
def test_killed_at_random_it_ends_in_the_same_version(seed, world, start):
    draw = random.Random(seed)
    whole = {"steps": 40, "pace": 0.05}
    # The trainer's call is the second; its steps go on where they stopped.
    for earliest, latest in ((2, 15), (16, 35)):
        process, moment = start(**whole), draw.randint(earliest, latest)
        wait_for(lambda moment=moment: progress(world) >= moment, process)
        kill(process, draw.randrange(3))
    process = start(**whole)
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert world.versions() == ["digits: 40 steps"]
    log = steps(world).read_text().split()
    assert log == [str(number) for number in range(40)]
    assert world.run(**whole) == (0, [])


LIMITED = """
import json, resource, signal, sys
from tests import tiny_pipeline
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(tiny_pipeline.main(json.loads(sys.argv[1])))
"""


def test_a_disk_that_is_full_is_one_sentence(world):
    """Files that must not grow stand for it."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, json.dumps(world.values())],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "metadata.sqlite cannot be used (" in line
    assert world.run() == (0, ALL)
