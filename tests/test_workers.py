"""Several processes that train one model: real ones, on real ports."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.pair import ADDRESS
from tests.pair import ENDLESS
from tests.pair import run
from tests.pair import started
from tests.test_features import Network
from tests.test_features import save
from tests.test_training import untimed
from tests.tiny import smallest_config
from transgan_tf import train
from transgan_tf import workers
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.stores import DataError
from transgan_tf.workers import WorkerError
from transgan_tf.workers import Workers
from transgan_tf.workers import read_cluster

# === Two that train ===


@pytest.fixture(scope="module")
def bereft(tmp_path_factory):
    """A folder where one of two workers was killed; what the chief did."""
    folder = tmp_path_factory.mktemp("pair")
    with started(folder, ENDLESS, ENDLESS) as (chief, other):
        chief.wait_for(chief.latest)
        other.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        status, line = chief.ended(60)
        seconds = time.monotonic() - killed
    return folder, chief.latest(), status, line, seconds


def test_a_lost_worker_ends_the_other(bereft):
    _, step, status, line, seconds = bereft
    assert status == 1
    assert re.match(f"error: worker 1 {ADDRESS} was lost or has ended: ", line)
    assert step > 0
    assert seconds < 60


@pytest.mark.slow
def test_the_pair_goes_on_and_stops_together(bereft):
    folder, step, *_ = bereft
    with started(folder, ENDLESS, ENDLESS) as (chief, other):
        chief.wait_for(lambda: chief.latest() > step)
        # To one of them alone.
        other.send_signal(signal.SIGTERM)
        ends = [process.ended() for process in (chief, other)]
    assert f"goes on at step {step}" in chief.said()
    assert f"goes on at step {step}" in other.said()
    assert ends[0] == ends[1]
    assert ends[0] == (143, f"interrupted and saved at step {chief.latest()}")
    # The chief alone has written.
    names = {path.name for path in folder.iterdir()}
    assert names == {"run0", "run0.txt", "run1.txt"}
    for name in ("config.json", "log.txt", "metrics.jsonl", "tensorboard"):
        assert (folder / "run0" / name).exists()
    grids = (folder / "run0" / "samples").iterdir()
    assert "step-000000000.png" in [path.name for path in grids]


@pytest.mark.slow
def test_a_lost_chief_ends_the_other(tmp_path):
    with started(tmp_path, ENDLESS, ENDLESS) as (chief, other):
        chief.wait_for(chief.latest)
        chief.send_signal(signal.SIGKILL)
        status, line = other.ended(60)
    assert status == 1
    assert re.match(f"error: worker 0 {ADDRESS} was lost or has ended: ", line)


@pytest.mark.slow
def test_a_silent_worker_ends_the_other(tmp_path):
    with started(tmp_path, ENDLESS, ENDLESS) as (chief, other):
        chief.wait_for(chief.latest)
        other.send_signal(signal.SIGSTOP)
        status, line = chief.ended(90)
    assert status == 1
    assert re.match(f"error: worker 1 {ADDRESS} was lost or has ended: ", line)


@pytest.mark.slow
def test_two_processes_train_as_one_which_can_go_on_alone(tmp_path):
    options = {"steps": 5, "log_every_steps": 1}
    assert run(tmp_path / "whole", **options) == 0
    half = options | {"steps": 3}
    with started(tmp_path, half, half) as pair:
        assert [process.ended(600)[0] for process in pair] == [0, 0]
    assert run(tmp_path / "run0", **options) == 0
    whole, parts = (
        CheckpointFolder(tmp_path / name / "checkpoints").latest()
        for name in ("whole", "run0")
    )
    assert whole.name == parts.name == "step-000000005"
    with (
        np.load(whole / "state.npz") as one,
        np.load(parts / "state.npz") as two,
    ):
        assert set(one) == set(two)
        for name in one:
            np.testing.assert_allclose(
                two[name], one[name], rtol=1e-3, atol=1e-4, err_msg=name
            )
    one, two = (
        (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        for name in ("whole", "run0")
    )
    for line, other in zip(one, two, strict=True):
        line, other = json.loads(line), json.loads(other)
        other = pytest.approx(untimed(other), rel=1e-3, abs=1e-3)
        assert untimed(line) == other


@pytest.mark.slow
def test_the_chief_scores_while_the_others_wait(tmp_path):
    evaluation = {
        "features": save(tmp_path / "net", Network()),
        "metrics": "fid",
        "num_images": 30,
        "every_images": 8,
        "keep_best": True,
    }
    options = ENDLESS | {"steps": 5, "evaluation": evaluation}
    with started(tmp_path, options, options) as pair:
        assert [process.ended(600)[0] for process in pair] == [0, 0]
    lines = (tmp_path / "run0" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    scored = [line["step"] for line in records if "evaluation" in line]
    assert scored == [0, 2, 4, 5]
    assert (tmp_path / "run0" / "checkpoints" / "best").is_file()
    assert not (tmp_path / "run1").exists()


# === What one cannot do ===


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "own", "others"),
    [
        (
            {"seed": 3, "steps": 7},
            rf"worker 1 {ADDRESS} has another configuration or other images "
            r"than worker 0 \(training.seed: 0 -> 3; training.steps: 100000 ->",
            None,
        ),
        (
            {"images": 20},
            r"other images than worker 0 \(dataset: noise, 21 images, CRC .*->",
            None,
        ),
        (
            {"size": 5},
            "the images have 5 x 5 px in colour, and the networks take 3",
            rf"worker 1 {ADDRESS} stopped: the images have 5 x 5 px",
        ),
        (
            {"fault": ("images", 4)},
            r"an image cannot be read \(the file is damaged\): check the",
            rf"worker 1 {ADDRESS} was lost or has ended",
        ),
    ],
)
def test_what_one_cannot_do_ends_both(tmp_path, change, own, others):
    with started(tmp_path, ENDLESS, ENDLESS | change) as (chief, other):
        ends = [process.ended() for process in (chief, other)]
    for (status, line), sentence in zip(
        ends, (others or own, own), strict=True
    ):
        assert status == 1
        assert line.startswith("error: ")
        assert re.search(sentence, line), line


@pytest.mark.slow
def test_waiting_for_the_others_has_an_end(tmp_path):
    program = "from transgan_tf import workers; workers.START_SECONDS = 3; "
    task = {"type": "worker", "index": 0}
    with socket.create_server(("localhost", 0)) as server:
        own = f"localhost:{server.getsockname()[1]}"
    cluster = {"cluster": {"worker": [own, "localhost:2"]}}
    done = subprocess.run(
        [sys.executable, "-c", program + "workers.connect()"],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TF_CONFIG": json.dumps(cluster | {"task": task})},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "waits for worker 1 (localhost:2), 3 s at most" in done.stderr


# === TF_CONFIG ===


def test_the_chief_is_the_first_of_all():
    jobs = {"chief": ["a:1"], "worker": ["b:2", "c:3"]}
    for kind, number, index in (("chief", 0, 0), ("worker", 1, 2)):
        task = {"type": kind, "index": number}
        cluster = read_cluster(json.dumps({"cluster": jobs, "task": task}))
        assert cluster.addresses == ("a:1", "b:2", "c:3")
        assert cluster.index == index
    assert cluster.others() == "worker 0 (a:1) or worker 1 (b:2)"


def config_of(*addresses, kind="worker", index=0):
    task = {"type": kind, "index": index}
    cluster = {"cluster": {"worker": addresses}, "task": task}
    return json.dumps(cluster)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "TF_CONFIG is not set: --strategy=multi_worker takes the addr"),
        ("{", "TF_CONFIG cannot be used (JSONDecodeError: "),
        ("[]", "TF_CONFIG cannot be used (TypeError: "),
        ('{"cluster": {}}', "TF_CONFIG cannot be used (KeyError: 'task')"),
        (config_of("a:1", "b:2", index=2), "TF_CONFIG cannot be used (Value"),
        (config_of("a:1", "b:2", kind="ps"), "TF_CONFIG cannot be used (Val"),
        (config_of("a:1"), "TF_CONFIG names one worker alone: "),
        (config_of("a:1", "a:1"), "TF_CONFIG has an address twice: "),
        (config_of("a:1", "b"), "TF_CONFIG has 'b', not a host and a port: "),
    ],
)
def test_a_wrong_cluster_is_one_sentence(text, sentence, monkeypatch, capsys):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert train.main(["--strategy=multi_worker"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {sentence}")
    assert error.count("\n") == 1


def test_one_process_alone_waits_for_nobody():
    alone = Workers(tf.distribute.get_strategy())
    assert (alone.count, alone.index, alone.is_chief) == (1, 0, True)
    assert alone.exchange("Grüße") == ["Grüße"]
    assert [alone.agree(status) for status in (0, 130, 143)] == [0, 130, 143]
    alone.check_same(smallest_config())
    with pytest.raises(DataError, match="mine"), alone.together():
        raise DataError("mine")


class Pair(Workers):
    """Two workers in one process: what the other tells stands ready."""

    def __init__(self, index, told):
        super().__init__(tf.distribute.get_strategy())
        self.cluster = workers.Cluster(("a:1", "b:2"), index)
        self.count, self.index, self.is_chief = 2, index, index == 0
        self.told = told

    def exchange(self, text):
        texts = [self.told, self.told]
        texts[self.index] = text
        return texts


def test_the_others_sentence_is_told_but_ones_own_comes_first():
    pair = Pair(0, "the disk is full.")
    with pytest.raises(WorkerError) as error, pair.together():
        pass
    assert str(error.value) == "worker 1 (b:2) stopped: the disk is full"
    with pytest.raises(DataError, match="mine"), pair.together():
        raise DataError("mine")
