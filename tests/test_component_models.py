"""The components that train, judge and publish a model."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.components import evaluator
from pipeline.components import infra_validator
from pipeline.components import pusher
from pipeline.components import trainer
from pipeline.components.configuration import split_config
from pipeline.components.gate import judge
from pipeline.components.graph import make_components
from pipeline.flags import PipelineFlags
from pipeline.orchestration import files
from pipeline.orchestration.component import HOLDS_WITH
from pipeline.orchestration.component import TRANSIENT
from pipeline.orchestration.component import Artifact
from pipeline.orchestration.component import ComponentError
from serving.client import ServingError
from serving.export import load_run
from serving.export import rollback
from serving.export import write_version
from tests.serving.tiny_run import write_run
from tests.test_component_examples import make_examples
from tests.test_features import Network
from tests.test_features import save
from tests.tiny import smallest_config
from transgan_tf.checkpoints import find_checkpoint
from transgan_tf.evaluating import add_to_run

pytestmark = pytest.mark.usefixtures("freed_graphs")


def artifact(path, fingerprint="f", **properties):
    return Artifact(Path(path), "Any", fingerprint, properties)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Digits of 12 px in colour."""
    folder = tmp_path_factory.mktemp("root") / "1"
    settings = {"image_size": 12, "max_images": 40}
    return make_examples(folder, "digits", "small", **settings)


def make_run(folder, seed=0, change=None):
    """Returns an artifact of a run with given weights, without training."""
    write_run(folder / "small", seed, change=change)
    return artifact(folder, f"run {seed}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, by the seeds of their weights."""
    folder = tmp_path_factory.mktemp("runs")
    return {seed: make_run(folder / str(seed), seed) for seed in (0, 1)}


@pytest.fixture(scope="module")
def model(runs, tmp_path_factory):
    """What the Trainer exports of the first."""
    folder = tmp_path_factory.mktemp("model")
    run_dir = runs[0].path / "small"
    generator, card = load_run(run_dir, "latest", trainer.NAME)
    (folder / trainer.SERVING).mkdir()
    write_version(folder / trainer.SERVING, generator, card)
    return artifact(folder, "model 0")


# === Trainer ===


def standing_in(folder, monkeypatch, script):
    """Lets another program train; it gets the flags of training."""
    program = folder / "train.sh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    # In place of the module: what ties it is run by the interpreter.
    interpreter = types.SimpleNamespace(executable=str(program))
    monkeypatch.setattr(trainer, "sys", interpreter)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (
            "echo step 1 >&2; echo 'error: too dark' >&2; exit 1",
            "^training failed: too dark$",
        ),
        ("echo Traceback >&2; exit 1", "failed: status 1, see the log$"),
        ("kill -9 $$", "was ended by SIGKILL, perhaps since memory ran out"),
    ],
)
def test_a_training_that_fails_is_told(
    script, sentence, tmp_path, monkeypatch, capfd
):
    standing_in(tmp_path, monkeypatch, script)
    with pytest.raises(ComponentError, match=sentence):
        trainer.train(["--dataset=small"])
    assert script.startswith("kill") or capfd.readouterr().err


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 130", 130),
        ("exit 143", 143),
        # While it starts, a signal has its default action.
        ("kill -INT $$", 130),
        ("kill -TERM $$", 143),
    ],
)
def test_a_training_that_was_stopped_is_not_exported(
    script, status, examples, tmp_path, monkeypatch
):
    standing_in(tmp_path, monkeypatch, script)
    parts = split_config(smallest_config())
    with pytest.raises(SystemExit) as stopped:
        trainer.run(examples, None, tmp_path, tmp_path / "model", *parts)
    assert stopped.value.code == status
    assert not (tmp_path / "model").exists()


WAITING = """
import signal, sys
ready, saved, number = sys.argv[1:]

def save(*_):
    open(saved, "w").close()
    sys.exit()

signal.signal(int(number), save)
open(ready, "w").close()
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_waited_for(number, tmp_path, monkeypatch):
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    os.mkfifo(ready)
    (tmp_path / "wait.py").write_text(WAITING)
    words = (sys.executable, tmp_path / "wait.py", ready, saved, number.value)
    standing_in(tmp_path, monkeypatch, f"exec {' '.join(map(str, words))}")

    def tell():
        ready.read_text()
        os.kill(os.getpid(), number)

    def handle(*_):
        raise SystemExit(143)

    before = signal.signal(number, handle)
    teller = threading.Thread(target=tell)
    teller.start()
    try:
        with pytest.raises(SystemExit):
            trainer.train([])
    finally:
        signal.signal(number, before)
        teller.join()
    assert saved.exists()


def train_small(examples, folder, config):
    """Runs the Trainer in this folder; returns its properties."""
    for name in ("model_run", "model"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return trainer.run(
        examples,
        None,
        folder / "model_run",
        folder / "model",
        *split_config(config),
    )


@pytest.mark.slow
def test_a_run_is_trained_and_exported(examples, tmp_path):
    made = train_small(examples, tmp_path, smallest_config(steps=2))
    run_dir = tmp_path / "model_run" / "small"
    folder = tmp_path / "model" / trainer.SERVING
    card = json.loads((folder / "model_card.json").read_text())
    assert find_checkpoint(run_dir)[1] == card["step"] == 2
    assert made["model"]["weights_sha256"] == card["weights_sha256"]
    assert card["data_licence"].startswith("MNIST")
    assert (card["run"], "created" in card) == ("small", False)
    assert (folder / "assets.extra" / "tf_serving_warmup_requests").exists()
    # Again in its folder: there is nothing to train, and the same comes out.
    shutil.rmtree(tmp_path / "model")
    config = smallest_config(steps=2, accumulation=2)
    assert train_small(examples, tmp_path, config) == made


@pytest.mark.slow
def test_a_mistake_of_the_user_is_passed_on(examples, tmp_path):
    grey = smallest_config({"channels": 1}, {"channels": 1})
    with pytest.raises(ComponentError, match="^training failed: the images ha"):
        train_small(examples, tmp_path, grey)


def test_a_run_may_be_scored_later(tmp_path):
    """As `transgan_tf.evaluate` does: that must not train it anew."""
    run = make_run(tmp_path / "run")
    (run.path / "small" / "metrics.jsonl").write_text("{}\n")
    made = files.record(run.path)
    add_to_run(run.path / "small", 0, 0, {"metrics": {"fid": 1.0}})
    names = {c.name: c for c in make_components(PipelineFlags("mnist"), [])}
    assert files.damage(run.path, made) is not None
    assert files.damage(run.path, made, names["Trainer"].growing) is None


# === The gate ===


@pytest.mark.parametrize(
    ("fid", "baseline", "bounds", "blessed", "reason"),
    [
        (7.0, None, (7.0, None), True, "FID 7 <= 7 (--max_fid)"),
        (7.1, None, (7.0, None), False, "FID 7.1 > 7 (--max_fid)"),
        (
            7.0,
            None,
            (None, 0.05),
            True,
            "FID 7; not compared, since no model was blessed before",
        ),
        (
            7.0,
            None,
            (6.0, 0.05),
            False,
            "FID 7 > 6 (--max_fid)",
        ),
        (
            10.5,
            10.0,
            (None, 0.05),
            True,
            "FID 10.5 <= 10.5, the last blessed model's 10 +5% "
            "(--max_fid_increase)",
        ),
        (
            10.6,
            10.0,
            (20.0, 0.05),
            False,
            "FID 10.6 > 10.5, the last blessed model's 10 +5% "
            "(--max_fid_increase)",
        ),
        (float("nan"), None, (None, 0.05), False, "could not be scored"),
        (float("nan"), 1.0, (5.0, 0.05), False, "could not be scored"),
        (None, 1.0, (5.0, 0.05), False, "could not be scored"),
    ],
)
def test_the_gate(fid, baseline, bounds, blessed, reason):
    verdict = judge(fid, baseline, *bounds)
    assert (verdict.blessed, verdict.judged) == (blessed, True)
    assert verdict.reason.endswith(reason)
    scored = fid is not None and not np.isnan(fid)
    assert blessed == (scored and all(t["passed"] for t in verdict.thresholds))


def test_without_a_threshold_there_is_no_blessing():
    verdict = judge(1.0, 2.0, None, None)
    assert (verdict.blessed, verdict.judged) == (False, False)
    assert "give --max_fid" in verdict.reason


# === Evaluator ===


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return save(tmp_path_factory.mktemp("features"), Network())


def evaluate(folder, examples, run, features, baseline=None, bounds=(None, 0)):
    """Runs the Evaluator; returns the blessing and `metrics.json`."""
    outputs = folder / "evaluation", folder / "blessing"
    for output in outputs:
        output.mkdir(parents=True)
    scoring = {
        "num_images": 5,
        "seed": 3,
        "attention_noise": False,
        "features": features,
        "metrics": "fid",
    }
    model = artifact("none", "model")
    properties = evaluator.run(
        examples, run, model, baseline, *outputs, scoring, None, *bounds, "none"
    )
    told = json.loads((outputs[0] / "metrics.json").read_text())
    (shown,) = [path.name for path in outputs[1].iterdir()] or [None]
    blessed = bool(properties["blessing"]["blessed"])
    assert shown in (None, "BLESSED" if blessed else "NOT_BLESSED")
    return shown, properties["blessing"]["reason"], told


def test_a_first_model_is_blessed(examples, runs, features, tmp_path):
    made = evaluate(tmp_path, examples, runs[0], features)
    assert made[0] == "BLESSED"
    assert made[2]["baseline"] is None
    protocol = made[2]["protocol"]
    assert (protocol["num_images"], protocol["seed"]) == (5, 3)
    assert protocol["reference_images"] == 40
    grid = np.asarray(Image.open(tmp_path / "evaluation" / "samples.png"))
    assert grid.shape == (96, 96, 3)


def test_two_models_are_compared_by_one_protocol(
    examples, runs, features, tmp_path
):
    first, _, scores = evaluate(
        tmp_path / "a", examples, runs[0], features, runs[1]
    )
    other, reason, back = evaluate(
        tmp_path / "b", examples, runs[1], features, runs[0]
    )
    # Each is the other's baseline; only the better one is not worse.
    assert sorted([first, other]) == ["BLESSED", "NOT_BLESSED"]
    assert scores["baseline"]["metrics"] == back["metrics"]
    assert scores["metrics"] == back["baseline"]["metrics"]
    assert scores["baseline"]["protocol"] == scores["protocol"]
    assert "the last blessed model's" in reason
    (threshold,) = back["thresholds"]
    assert threshold["baseline"] == scores["metrics"]["fid"]


def test_without_thresholds_no_file_is_written(
    examples, runs, features, tmp_path
):
    bounds = (None, None)
    made = evaluate(tmp_path, examples, runs[0], features, bounds=bounds)
    assert made[0] is None and "neither blessed nor refused" in made[1]


def test_what_is_not_finite_is_not_blessed(examples, features, tmp_path):
    def spoil(arrays):
        for name in arrays:
            if "to_image" in name:
                arrays[name] = arrays[name] * np.float32(np.nan)

    run = make_run(tmp_path / "run", change=spoil)
    shown, reason, told = evaluate(tmp_path / "e", examples, run, features)
    assert shown == "NOT_BLESSED" and "could not be scored" in reason
    assert "not finite" in told["problem"] and told["metrics"] == {}
    assert not (tmp_path / "e" / "evaluation" / "samples.png").exists()


def test_a_baseline_of_another_size_does_not_count(
    examples, runs, features, tmp_path
):
    other = make_run(tmp_path / "run", 1)
    path = other.path / "small" / "config.json"
    generator = {"channels": 1}
    config = smallest_config(generator, {"channels": 1})
    path.write_text(config.to_json())
    made = evaluate(tmp_path / "e", examples, runs[0], features, other)
    assert made[0] == "BLESSED" and "of another size" in made[1]


def test_a_baseline_that_cannot_be_scored_is_told(
    examples, runs, features, tmp_path
):
    other = make_run(tmp_path / "run", 1)
    (other.path / "small" / "config.json").write_text("{")
    with pytest.raises(ComponentError) as caught:
        evaluate(tmp_path / "e", examples, runs[0], features, other)
    assert str(caught.value).startswith("the last blessed run could not be")
    assert f"remove {other.path} to compare with the one" in str(caught.value)
    # The other way out that it tells.
    bounds = (1e9, None)
    made = evaluate(
        tmp_path / "f", examples, runs[0], features, other, bounds=bounds
    )
    assert made[0] == "BLESSED" and made[2]["baseline"] is None


# === InfraValidator ===


def validate_infra(model, folder, seconds=120.0):
    folder.mkdir()
    told = infra_validator.run(model, folder, seconds)["blessing"]
    (shown,) = [path.name for path in folder.iterdir()]
    assert shown == (
        "INFRA_BLESSED" if told["blessed"] else "INFRA_NOT_BLESSED"
    )
    return told


@pytest.mark.slow
def test_a_candidate_is_served_and_asked(model, tmp_path):
    told = validate_infra(model, tmp_path / "blessing")
    assert told == {"blessed": 1, "reason": "answers over REST and gRPC"}


def spoiled(model, folder, spoil):
    shutil.copytree(model.path, folder)
    spoil(folder / trainer.SERVING)
    return artifact(folder, "spoiled")


def expect_other_size(version):
    card = json.loads((version / "model_card.json").read_text())
    card["config"]["generator"]["stages"][-1]["resolution"] = 24
    (version / "model_card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda version: (version / "saved_model.pb").unlink(),
            "the version does not load",
        ),
        (
            lambda version: (version / "model_card.json").unlink(),
            "its model_card.json cannot be used",
        ),
    ],
)
def test_a_candidate_that_cannot_be_used_is_not_blessed(
    spoil, reason, model, tmp_path
):
    bad = spoiled(model, tmp_path / "model", spoil)
    told = validate_infra(bad, tmp_path / "blessing")
    assert not told["blessed"] and reason in told["reason"]
    assert not told[TRANSIENT]


@pytest.mark.slow
def test_a_candidate_that_answers_otherwise_is_not_blessed(model, tmp_path):
    bad = spoiled(model, tmp_path / "model", expect_other_size)
    told = validate_infra(bad, tmp_path / "blessing")
    assert "gives images of shape (12, 12, 3), not" in told["reason"]
    assert not told["blessed"] and not told[TRANSIENT]


def test_a_candidate_that_takes_too_long_is_not_blessed(model, tmp_path):
    told = validate_infra(model, tmp_path / "blessing", 0.0)
    assert not told["blessed"]
    assert "not load the model within 0 seconds" in told["reason"]
    # On another day the machine may be faster.
    assert told[TRANSIENT] == 1


@pytest.mark.parametrize("error", ["memory", "tensors"])
def test_want_of_memory_is_not_the_models_fault(
    error, model, tmp_path, monkeypatch
):
    from tensorflow import errors

    def run(*arguments):
        if error == "memory":
            raise MemoryError("no room")
        raise errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr("serving.servable.Servable.run", run)
    told = validate_infra(model, tmp_path / "blessing")
    assert (told["blessed"], told[TRANSIENT]) == (0, 1)
    assert "ran out" in told["reason"]


@pytest.mark.parametrize(
    ("code", "passes"), [("UNAVAILABLE", 1), ("INVALID_ARGUMENT", 0)]
)
def test_only_what_is_the_models_fault_is_for_ever(
    code, passes, model, tmp_path, monkeypatch
):
    def fail(*arguments):
        raise ServingError(code, "no images today")

    monkeypatch.setattr(infra_validator, "_check", fail)
    told = validate_infra(model, tmp_path / "blessing")
    assert told == {
        "blessed": 0,
        "reason": "no images today",
        TRANSIENT: passes,
    }


# === Pusher ===

YES = {"blessed": 1, "reason": "FID 7"}
NO = {"blessed": 0, "reason": "FID 9 > 7"}


@pytest.fixture
def root(tmp_path):
    scores = {"metrics": {"fid": 7.0}, "too_few": [], "protocol": {"seed": 0}}
    folder = tmp_path / "root" / "Evaluator" / "evaluation" / "5"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(scores))
    return tmp_path / "root"


def push(
    root, execution, model, judged=YES, infra=YES, licence=None, keep=None
):
    """Runs the Pusher as an execution; returns its properties."""
    folder = root / "Pusher" / "pushed_model" / str(execution)
    folder.mkdir(parents=True, exist_ok=True)
    told = pusher.run(
        model,
        artifact("none", **judged),
        artifact("none", **infra),
        artifact(root / "Evaluator" / "evaluation" / "5"),
        folder,
        str(root.parent / "models" / "digits"),
        licence,
        keep,
    )
    return told["pushed_model"]


def pushed_versions(root):
    folder = root.parent / "models" / "digits"
    if not folder.exists():
        return []
    return sorted(p.name for p in folder.iterdir() if p.name.isdecimal())


def test_a_blessed_model_becomes_a_version(root, model):
    told = push(root, 7, model, licence="CC0")
    place = root.parent / "models" / "digits" / "1"
    assert told == {
        "pushed": 1,
        "pushed_version": "1",
        "pushed_destination": str(place),
        "reason": "FID 7",
        HOLDS_WITH: str(place),
    }
    card = json.loads((place / "model_card.json").read_text())
    assert card["pipeline"] == {
        "pipeline_root": str(root),
        "component": "Pusher",
        "execution": 7,
        "fingerprint": "model 0",
    }
    assert (card["name"], card["data_licence"]) == ("digits", "CC0")
    assert card["evaluation"]["metrics"] == {"fid": 7.0}
    assert card["created"]
    made = (root / "Pusher" / "pushed_model" / "7" / "pushed.json").read_text()
    assert json.loads(made) == {"version": "1", "destination": str(place)}
    source = model.path / trainer.SERVING
    for path in source.rglob("*"):
        copy = place / path.relative_to(source)
        if path.is_file() and path.name != "model_card.json":
            assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("judged", "infra", "who"),
    [(NO, YES, "Evaluator"), (YES, NO, "InfraValidator"), (NO, NO, "Eval")],
)
def test_nothing_is_pushed_unless_both_bless(judged, infra, who, root, model):
    told = push(root, 7, model, judged, infra)
    assert told["pushed"] == 0 and told["reason"].startswith(who)
    assert told["reason"].endswith("did not bless the model: FID 9 > 7")
    assert pushed_versions(root) == []


def test_a_killed_execution_finds_what_it_pushed(root, model):
    first = push(root, 7, model)
    # What another pushes meanwhile changes nothing.
    push(root, 8, replace(model, fingerprint="model 1"))
    assert push(root, 7, model) == first
    assert pushed_versions(root) == ["1", "2"]


def test_another_root_has_other_executions(root, model, tmp_path):
    push(root, 7, model)
    other = tmp_path / "other"
    shutil.copytree(root, other)
    push(other, 7, replace(model, fingerprint="model 1"))
    assert pushed_versions(root) == ["1", "2"]


def test_the_newest_version_is_not_pushed_twice(root, model):
    push(root, 7, model)
    told = push(root, 9, model)
    assert (told["pushed"], told["pushed_version"]) == (1, "1")
    assert push(root, 10, model, licence="CC0")["pushed_version"] == "2"
    assert pushed_versions(root) == ["1", "2"]


def test_an_older_model_is_pushed_again(root, model):
    push(root, 7, model)
    push(root, 8, replace(model, fingerprint="model 1"))
    assert push(root, 9, model)["pushed_version"] == "3"


def test_a_model_that_was_rolled_back_stays_away(root, model):
    push(root, 7, model)
    bad = replace(model, fingerprint="model 1")
    push(root, 8, bad)
    rollback(root.parent / "models" / "digits")
    told = push(root, 9, bad)
    assert told["pushed"] == 0
    assert (
        "version 2 is this model, and was rolled back to version 1"
        in (told["reason"])
    )
    # So that the refusal is not in the cache once that version is removed.
    assert told[HOLDS_WITH] == str(root.parent / "models" / "digits" / "2")
    # The one that was brought back is there, and is no push of execution 7.
    assert push(root, 10, model)["pushed_version"] == "3"
    assert push(root, 7, model)["pushed_version"] == "1"
    better = replace(model, fingerprint="model 2")
    assert push(root, 11, better)["pushed_version"] == "4"


def test_older_versions_are_removed(root, model):
    for number in range(4):
        one = replace(model, fingerprint=f"model {number}")
        push(root, 7 + number, one, keep=2)
    assert pushed_versions(root) == ["3", "4"]


def test_another_number_to_keep_is_put_into_effect(root, model):
    for number in range(3):
        push(root, 7 + number, replace(model, fingerprint=f"model {number}"))
    newest = replace(model, fingerprint="model 2")
    assert push(root, 10, newest, keep=1)["pushed_version"] == "3"
    assert pushed_versions(root) == ["3"]


def standing(told, fingerprint):
    """Asks about an earlier push of a model."""
    inputs = {"model": artifact("none", fingerprint)}
    outputs = {"pushed_model": artifact("none", **told)}
    return pusher.why_not_standing(inputs, outputs)


def test_a_push_stands_until_this_pipeline_pushes_another(root, model):
    first = push(root, 7, model)
    assert standing(first, "model 0") is None
    second = push(root, 8, replace(model, fingerprint="model 1"))
    place = root.parent / "models" / "digits"
    told = f"{place}/1 is not the newest any more"
    assert standing(first, "model 0") == told
    assert standing(second, "model 1") is None
    assert standing({"pushed": 0, "reason": "FID 9 > 7"}, "model 0") is None
    rollback(place)
    told = f"{place}/2 is not the newest any more"
    assert standing(second, "model 1") == told
    # Somebody begins the folder anew.
    shutil.rmtree(place)
    push(root, 9, replace(model, fingerprint="model 2"))
    assert standing(first, "model 0") == f"{place}/1 is another model now"


def test_pipelines_that_share_a_folder_do_not_push_in_turns(
    root, model, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(root, other)
    first = push(root, 7, model)
    push(other, 3, replace(model, fingerprint="model 1"))
    assert standing(first, "model 0") is None
    # Nor where it has a reason to look again, such as another --keep.
    assert push(root, 8, model, keep=5)["pushed_version"] == "1"
    assert pushed_versions(root) == ["1", "2"]


def test_two_that_push_at_once_push_one_version(root, model, monkeypatch):
    make_card = pusher._make_card

    def slow(*arguments):
        time.sleep(0.3)
        return make_card(*arguments)

    monkeypatch.setattr(pusher, "_make_card", slow)
    with ThreadPoolExecutor() as threads:
        made = [threads.submit(push, root, n, model) for n in (7, 8)]
    assert [each.result()["pushed_version"] for each in made] == ["1", "1"]
    assert pushed_versions(root) == ["1"]


def test_versions_of_other_programs_do_no_harm(root, model):
    folder = root.parent / "models" / "digits"
    (folder / "1").mkdir(parents=True)
    (folder / "4").mkdir()
    (folder / "4" / "model_card.json").write_text("[]")
    assert push(root, 7, model)["pushed_version"] == "5"


def test_a_folder_that_cannot_be_written_is_told(root, model):
    folder = root.parent / "models" / "digits"
    folder.parent.mkdir()
    folder.write_text("a file")
    with pytest.raises(ValueError, match="is a file: choose another"):
        push(root, 7, model)


def test_pushing_needs_no_tensorflow():
    code = (
        "import sys, pipeline.components.pusher\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
