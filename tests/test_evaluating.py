"""Scores in a run's life: while it trains, and by the command afterwards."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.test_evaluation import IMAGES
from tests.test_features import Network
from tests.test_features import save
from tests.tiny import tiny_config
from transgan_tf import evaluate
from transgan_tf import training
from transgan_tf.callbacks import append_record
from transgan_tf.checked import UserError
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.checkpoints import load_generator
from transgan_tf.configs import EvaluationConfig
from transgan_tf.evaluating import evaluations
from transgan_tf.evaluation import Evaluator
from transgan_tf.stores import ArrayStore

pytestmark = pytest.mark.usefixtures("freed_graphs", "empty_cache")


# === While training ===


def run_config(folder, **settings):
    settings = {"num_images": 20, "every_images": 16, "metrics": "fid,is"}
    settings |= {"features": folder}
    return dataclasses.replace(
        tiny_config(
            steps=5,
            checkpoint_every_steps=2,
            keep_checkpoints=1,
            log_every_steps=5,
            sample_every_steps=5,
            # Fast to trace: no penalty, one update.
            loss="hinge",
            n_critic=1,
            batch_size=8,
            generator_batch_factor=1,
        ),
        evaluation=EvaluationConfig(**settings),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("features") / "net", Network())


def train(config, folder):
    return training.train(config, IMAGES, folder, "noise")


def lines_of(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def scored(folder):
    return {
        line["step"]: line["evaluation"]
        for line in lines_of(folder)
        if "evaluation" in line
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory, saved):
    folder = tmp_path_factory.mktemp("runs") / "noise"
    assert train(run_config(saved), folder) == 0
    return folder


def test_training_scores_from_before_the_first_step_on(run):
    assert list(scored(run)) == [0, 2, 4, 5]
    lines = {line["step"]: line for line in lines_of(run)}
    assert lines[4]["images"] == 4 * 8
    numbers = scored(run)[4]["metrics"]
    assert list(numbers) == ["fid", "is", "is_std"]
    assert "step 4: fid" in (run / "log.txt").read_text()


def test_a_last_evaluation_that_was_interrupted_is_made_up(
    run, saved, tmp_path
):
    again = shutil.copytree(run, tmp_path / "again")
    path = again / "metrics.jsonl"
    *kept, last = path.read_text().splitlines(keepends=True)
    assert json.loads(last)["step"] == 5 and "evaluation" in last
    path.write_text("".join(kept))
    assert train(run_config(saved), again) == 0
    assert scored(again) == scored(run)
    # And no more than once.
    before = path.read_bytes()
    assert train(run_config(saved), again) == 0
    assert path.read_bytes() == before


def test_tensorboard_has_the_scores_and_their_protocol(run):
    (events,) = (run / "tensorboard").iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(str(events)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.tensor
    fid = tf.make_ndarray(found["evaluation/fid"][4])
    assert fid == pytest.approx(scored(run)[4]["metrics"]["fid"], rel=1e-6)
    text = tf.make_ndarray(found["evaluation"][4]).item().decode()
    assert "features_sha256" in text


def test_the_command_finds_the_numbers_of_training_again(run, saved, capsys):
    arguments = evaluate.Arguments(run_dir=run, metrics="fid,is")
    (run / "data").mkdir()
    monkey = pytest.MonkeyPatch()
    monkey.setattr(
        "transgan_tf.data.load_dataset", lambda *_: ArrayStore(IMAGES)
    )
    before = len(lines_of(run))
    try:
        assert evaluate.act(arguments) == 0
    finally:
        monkey.undo()
    record = json.loads(capsys.readouterr().out)
    assert record["step"] == 5 and record["images"] == 40
    assert record["evaluation"] == scored(run)[5]
    assert lines_of(run)[before:] == [record]


def test_a_failing_evaluation_is_reported_and_training_goes_on(
    tmp_path, saved, monkeypatch, caplog
):
    def fail(*_):
        raise RuntimeError("the disk burns")

    monkeypatch.setattr(Evaluator, "_sample", fail)
    with caplog.at_level(logging.INFO, "transgan_tf"):
        assert train(run_config(saved), tmp_path / "run") == 0
    assert "step 2: not scored, training goes on: the disk burns" in caplog.text
    assert scored(tmp_path / "run") == {}
    newest = CheckpointFolder(tmp_path / "run" / "checkpoints").latest()
    assert newest.name == "step-000000005"


def test_what_cannot_be_scored_at_all_stops_before_training(tmp_path, saved):
    config = run_config(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="nothing is not a SavedModel"):
        train(config, tmp_path / "run")


@pytest.mark.slow
def test_the_best_checkpoint_is_kept(tmp_path, saved, monkeypatch):
    fids = {0: 1.0, 2: 7.0, 4: 3.0, 5: 5.0}
    score = Evaluator.score
    config = run_config(saved)
    best = dataclasses.replace(config.evaluation, keep_best=True)

    def scripted(self, generator, stop):
        result = score(self, generator, stop)
        result["metrics"]["fid"] = fids.pop(min(fids))
        return result

    monkeypatch.setattr(Evaluator, "score", scripted)
    folder = tmp_path / "run"
    assert train(dataclasses.replace(config, evaluation=best), folder) == 0
    checkpoints = folder / "checkpoints"
    assert (checkpoints / "best").read_text() == "step-000000004\n"
    # One is kept beside it, the newest.
    kept = sorted(path.name for path in checkpoints.glob("step-*"))
    assert kept == ["step-000000004", "step-000000005"]
    load_generator(folder, "best")
    # Going on, what is worse than the best does not replace it.
    fids.update({6: 4.0, 7: 2.0})
    longer = dataclasses.replace(
        config,
        evaluation=best,
        training=dataclasses.replace(config.training, steps=7),
    )
    assert train(longer, folder) == 0
    assert (checkpoints / "best").read_text() == "step-000000007\n"
    assert list(scored(folder)) == [0, 2, 4, 5, 6, 7]


def test_torn_lines_cost_nothing_else(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "evaluation": {}}\n{"step": 3, "eva')
    append_record(path, {"step": 4, "evaluation": {}})
    append_record(path, {"step": 5, "evaluation": {}})
    found = [record["step"] for record in evaluations(tmp_path)]
    assert found == [2, 4, 5]
    append_record(tmp_path / "new.jsonl", {"step": 1})
    assert (tmp_path / "new.jsonl").read_text() == '{"step": 1}\n'


# === The command ===


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"run_dir": Path("nowhere")}, "nowhere is not a run"),
        ({"checkpoint": "best"}, "has no checkpoint 'best': it has step-"),
        ({"checkpoint": "../samples"}, "has no checkpoint '../samples'"),
        ({"checkpoint": "."}, "has no checkpoint '.'"),
        ({"metrics": "fid,fid"}, "must name each metric once"),
        ({"num_images": 2**61}, "must be at most 10,000,000"),
        ({"features": "netz"}, "netz is not a SavedModel"),
        ({"num_images": 5, "metrics": "fid,is"}, "is takes at least 10 images"),
        ({"metrics": "fdi"}, "evaluation.metrics must be one of.*'fid'"),
        ({"reference": Path("no.npz")}, "there is no file no.npz"),
        ({"floor": True, "num_images": 20}, "real images: leave --num_images"),
        ({"dataset": "mnist"}, r"12 x 12 px in colour|28 x 28 px"),
        (
            {"features": "classifier", "inception": Path("x")},
            "--inception goes with --features=inception alone",
        ),
    ],
)
def test_mistakes_are_one_sentence(flags, sentence, run, saved, monkeypatch):
    monkeypatch.setattr(
        "transgan_tf.data.load_dataset",
        lambda name, *_: ArrayStore(
            IMAGES if name == "noise" else np.zeros((3, 28, 28, 1), "uint8")
        ),
    )
    arguments = evaluate.Arguments(**{"run_dir": run} | flags)
    with pytest.raises(UserError, match=sentence) as error:
        evaluate.act(arguments)
    assert "\n" not in str(error.value)


def test_other_images_than_the_runs_are_refused_unless_named(
    run, monkeypatch, capsys
):
    other = ArrayStore(IMAGES[1:])
    monkeypatch.setattr("transgan_tf.data.load_dataset", lambda *_: other)
    arguments = evaluate.Arguments(run_dir=run, metrics="fid")
    with pytest.raises(UserError, match="--dataset=noise to compare with them"):
        evaluate.act(arguments)
    named = dataclasses.replace(arguments, dataset="noise", num_images=12)
    assert evaluate.act(named) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["evaluation"]["protocol"]["reference_images"] == 36


def test_a_written_reference_replaces_the_images(
    run, tmp_path, monkeypatch, capsys
):
    store = ArrayStore(IMAGES)
    monkeypatch.setattr("transgan_tf.data.load_dataset", lambda *_: store)
    path = tmp_path / "reference.npz"
    first = evaluate.Arguments(run_dir=run, num_images=12, write_reference=path)
    assert evaluate.act(first) == 0
    monkeypatch.setattr("transgan_tf.data.load_dataset", None)
    second = evaluate.Arguments(run_dir=run, num_images=12, reference=path)
    assert evaluate.act(second) == 0
    one, two = map(json.loads, capsys.readouterr().out.splitlines())
    assert one["evaluation"]["metrics"] == two["evaluation"]["metrics"]
    assert "from reference.npz" in two["evaluation"]["protocol"]["reference"]
    both = dataclasses.replace(second, dataset="noise")
    with pytest.raises(UserError, match="leave --dataset and"):
        evaluate.act(both)


def test_the_floor_needs_no_checkpoint(run, monkeypatch, capsys):
    store = ArrayStore(IMAGES)
    monkeypatch.setattr("transgan_tf.data.load_dataset", lambda *_: store)
    before = lines_of(run)
    arguments = evaluate.Arguments(run_dir=run, metrics="fid", floor=True)
    assert evaluate.act(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["protocol"]["reference"] == "the other half"
    assert lines_of(run) == before
