"""Exports of tiny runs: what is published, what is refused, what is left."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC
from datetime import datetime
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving import card
from serving import check
from serving import export
from serving import signatures
from serving.servable import Servable
from serving.versions import find_versions
from tests.serving.tiny_run import Probe
from tests.serving.tiny_run import tiny_generator
from tests.serving.tiny_run import write_run
from transgan_tf import sampling
from transgan_tf.callbacks import append_record
from transgan_tf.checkpoints import load_generator
from transgan_tf.images import embedded_digits
from transgan_tf.stores import ArrayStore

SEEDS = np.array([0, 3, 2**40])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two checkpoints, the second scored twice."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    write_run(folder, seed=1, step=2, dataset="cats, 7 images, CRC 01234567")
    config = (folder / "config.json").read_text()
    write_run(folder, seed=2, step=4)
    (folder / "config.json").write_text(config)
    for step, fid in ((2, 9.0), (4, 8.0), (4, 7.5)):
        scores = {"metrics": {"fid": fid}, "too_few": [], "protocol": {"a": 1}}
        record = {"step": step, "images": 8 * step, "evaluation": scores}
        append_record(folder / "metrics.jsonl", record)
    append_record(folder / "metrics.jsonl", {"step": 4, "loss": 0.5})
    return folder


@pytest.fixture(scope="module")
def model_dir(run, tmp_path_factory):
    """A model of two versions, of the run's two checkpoints."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    for number, name in ((1, "step-000000002"), (2, "latest")):
        version = export.export(run, folder, name)
        assert version == folder / str(number)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def pixels(version, seeds=SEEDS):
    """Returns the images of seeds as a server would, `(N, H, W, C)`."""
    servable = Servable(version)
    inputs = {"seed": seeds, "truncation": np.ones(len(seeds), "float32")}
    outputs = servable.run(servable.signatures["sample"], inputs)
    servable.close()
    return np.stack([check.decode_png(file) for file in outputs["png_bytes"]])


def assert_shows(version, run, checkpoint):
    """Checks that a version's images are those of a run's checkpoint."""
    generator = load_generator(run, checkpoint)
    expected = sampling.generate(generator, SEEDS).astype(int)
    assert np.abs(pixels(version) - expected).max() <= 1


def test_versions_are_of_the_checkpoints_that_were_named(model_dir, run):
    assert_shows(model_dir / "1", run, "step-000000002")
    assert_shows(model_dir / "2", run, "step-000000004")
    assert (pixels(model_dir / "1") != pixels(model_dir / "2")).any()


def test_a_version_loads_in_python_too(model_dir, run):
    loaded = tf.saved_model.load(str(model_dir / "2"))
    generator = load_generator(run)
    z = np.random.default_rng(0).standard_normal((3, 5), "float32")
    images = loaded.signatures["serving_default"](latents=z)["images"]
    expected = generator(z).numpy().clip(-1, 1)
    np.testing.assert_allclose(images, expected, atol=1e-5)


def test_a_version_holds_each_weight_once(model_dir):
    reader = tf.train.load_checkpoint(
        str(model_dir / "2" / "variables" / "variables")
    )
    shapes = reader.get_variable_to_shape_map().values()
    written = sum(int(np.prod(shape)) for shape in shapes if shape)
    # The strengths of the noise, which is off, are scalars.
    used = [v for v in tiny_generator().variables if v.shape.rank]
    assert written == sum(int(np.prod(v.shape)) for v in used)


def test_the_card_says_what_a_version_is(model_dir, run):
    facts = json.loads((model_dir / "2" / "model_card.json").read_text())
    assert facts["name"] == "tiny"
    age = datetime.now(UTC) - datetime.fromisoformat(facts["created"])
    assert 0 <= age.total_seconds() < 3600
    assert (facts["checkpoint"], facts["step"]) == ("step-000000004", 4)
    # 4 images in each of 2 updates of the discriminator, in each of 4 steps.
    assert facts["images_seen"] == 32
    assert facts["evaluation"]["metrics"] == {"fid": 7.5}
    assert facts["evaluation"]["protocol"] == {"a": 1}
    assert facts["preset"] == "tiny"
    assert facts["config"] == json.loads((run / "config.json").read_text())
    assert facts["dataset"] == "cats, 7 images, CRC 01234567"
    assert facts["data_licence"] == "unknown: see the dataset's source"
    assert facts["tensorflow"] == tf.__version__
    assert facts["keras"] == keras.__version__
    assert len(facts["code"]["sha256"]) == 64
    first = json.loads((model_dir / "1" / "model_card.json").read_text())
    assert first["evaluation"]["metrics"] == {"fid": 9.0}
    assert first["weights_sha256"] != facts["weights_sha256"]
    assert facts["weights_sha256"] == card.weights_fingerprint(
        load_generator(run)
    )
    servable = Servable(model_dir / "2")
    described = facts["signatures"]
    assert set(described) == set(servable.signatures)
    for key, signature in servable.signatures.items():
        assert set(described[key]["inputs"]) == set(signature.inputs)
        assert set(described[key]["outputs"]) == set(signature.outputs)
    servable.close()


def test_the_card_knows_the_licence_of_the_embedded_digits(tmp_path):
    digits = ArrayStore(embedded_digits()[0])
    assert card.EMBEDDED_DIGITS == f"mnist, {digits.fingerprint}"
    run = write_run(tmp_path, dataset=card.EMBEDDED_DIGITS)
    made = ["step-000000002", 2, load_generator(run), "tiny"]
    assert "CC BY-SA 3.0" in card.make_card(run, *made)["data_licence"]
    assert card.make_card(run, *made)["evaluation"] is None
    own = card.make_card(run, *made, data_licence="CC0")
    assert own["data_licence"] == "CC0"


def test_code_of_another_content_has_another_fingerprint(monkeypatch, tmp_path):
    for room in ("serving", "transgan_tf"):
        (tmp_path / room).mkdir()
    source = tmp_path / "transgan_tf" / "a.py"
    monkeypatch.setattr(card, "__file__", str(tmp_path / "serving" / "card.py"))
    prints = []
    for text in ("x = 1", "x = 2"):
        source.write_text(text)
        prints.append(card.code_fingerprint())
    source.rename(source.with_name("b.py"))
    prints.append(card.code_fingerprint())
    assert len(set(prints)) == 3


def test_warm_up_requests_are_answered(model_dir):
    path = model_dir / "2" / "assets.extra" / "tf_serving_warmup_requests"
    servable = Servable(model_dir / "2")
    seen = []
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        key = request.model_spec.signature_name
        answer = servable.run(servable.signatures[key], inputs)
        rows = {len(value) for value in [*inputs.values(), *answer.values()]}
        assert len(rows) == 1
        assert request.model_spec.name == "tiny"
        seen.append((key, *rows))
    servable.close()
    keys = ("serving_default", "sample", "interpolate")
    assert seen == [(key, rows) for rows in (1, 8) for key in keys]


# === The check ===


def test_other_images_than_the_models_are_refused(model_dir, run):
    generator = load_generator(run)
    bias = generator.to_image.bias
    bias.assign(bias + 1e-4)
    with pytest.raises(check.CheckError, match="serving_default differs from"):
        check.check_version(model_dir / "2", generator)


def write_naive(folder, jit_compile=False):
    """Writes a version whose signatures check nothing."""
    generator = tiny_generator()

    @tf.function(
        input_signature=[tf.TensorSpec([None, 5], tf.float32, "latents")],
        jit_compile=jit_compile,
    )
    def images(latents):
        return {"images": tf.clip_by_value(generator(latents), -1.0, 1.0)}

    images.get_concrete_function()
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serving_default", images)
    archive.write_out(str(folder), verbose=False)
    return generator


def test_what_needs_xla_is_refused(tmp_path):
    generator = write_naive(tmp_path, jit_compile=True)
    with pytest.raises(check.CheckError, match="only when compiled by XLA"):
        check.check_version(tmp_path, generator)


def test_a_missing_signature_is_refused(tmp_path):
    generator = write_naive(tmp_path)
    with pytest.raises(check.CheckError, match="has no signature sample"):
        check.check_version(tmp_path, generator)


def test_a_version_that_refuses_too_little_is_refused(tmp_path, monkeypatch):
    class Smooth(Probe):
        def __call__(self, z):
            return tf.tanh(z)[..., None, None]

    monkeypatch.setattr(signatures, "_check_position", lambda given: given)
    export.write_saved_model(tmp_path, Smooth())
    with pytest.raises(check.CheckError, match="interpolate must refuse"):
        check.check_version(tmp_path, Smooth())


@pytest.mark.slow
def test_what_only_python_loads_is_refused(tmp_path):
    generator = tiny_generator()

    @tf.function(
        input_signature=[tf.TensorSpec([None, 5], tf.float32, "latents")]
    )
    def images(latents):
        return {"images": generator(latents)}

    module = tf.Module()
    module.generator = generator
    tf.saved_model.save(module, str(tmp_path), {"serving_default": images})
    with pytest.raises(
        check.CheckError, match="serving_default fails on valid"
    ):
        check.check_version(tmp_path, generator)


def test_a_damaged_version_is_refused(model_dir, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(
        (model_dir / "2" / "saved_model.pb").read_bytes()
    )
    with pytest.raises(check.CheckError, match="does not load"):
        check.check_version(tmp_path, tiny_generator())


def test_a_failed_check_leaves_nothing(tmp_path, capsys):
    def spoil(arrays):
        name = next(name for name in arrays if "to_image" in name)
        arrays[name][:] = np.nan

    run = write_run(tmp_path / "run", change=spoil)
    model_dir = tmp_path / "models" / "tiny"
    assert export.main([f"--run_dir={run}", f"--model_dir={model_dir}"]) == 1
    error = capsys.readouterr().err
    assert (
        "not finite: take an earlier checkpoint" in error
        and len(error.splitlines()) == 1
    )
    assert names(model_dir) == [".lock"]


# === Command lines ===


def test_back_to_the_version_before_and_on(model_dir, run, tmp_path, capsys):
    model = tmp_path / "tiny"
    model.mkdir()
    for number in ("1", "2"):
        (model / number).symlink_to(model_dir / number)
    assert export.main([f"--model_dir={model}", "--rollback"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{model / '3'}\n" and captured.err == ""
    assert_shows(model / "3", run, "step-000000002")
    origin = json.loads((model / "3" / "model_card.json").read_text())
    assert (origin["step"], origin["republished_from"]) == (2, 1)
    flags = [f"--run_dir={run}", f"--model_dir={model}", "--keep=2"]
    assert export.main([*flags, "--data_licence=CC0"]) == 0
    assert capsys.readouterr().out == f"{model / '4'}\n"
    assert names(model) == [".lock", "3", "4"]
    facts = json.loads((model / "4" / "model_card.json").read_text())
    assert facts["data_licence"] == "CC0"


def test_a_version_that_was_damaged_does_not_come_back(
    model_dir, tmp_path, capsys
):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_text("damaged")
    (tmp_path / "2").symlink_to(model_dir / "2")
    assert export.main([f"--model_dir={tmp_path}", "--rollback"]) == 1
    assert "does not load" in capsys.readouterr().err
    assert names(tmp_path) == [".lock", "1", "2"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "--run_dir must name a run, unless --rollback is given"),
        (["--run_dir=nowhere"], "nowhere is not a run, since it has no config"),
        (["--run_dir=RUN", "--checkpoint=best"], "'best': it has step-0000000"),
        (["--run_dir=RUN", "--keep=0"], "--keep must be at least 1, got 0"),
        (["--run_dir=RUN", "--rollback"], "--run_dir does not go with --rollb"),
        (["--rollback"], "models cannot be read (No such file or directory)"),
        (["--run_dir=RUN", "--model_dir=FILE"], "is a file: choose another"),
        (["--run_dir=RUN", "--model_dir=FILE/a"], "cannot be written (Not a d"),
        (["--run_dir=RUN", "--model_dir=VERSION"], "is a version itself: name"),
    ],
)
def test_mistakes_get_one_sentence(
    flags, sentence, run, model_dir, tmp_path, capsys
):
    places = {
        "RUN": run,
        "FILE": run / "config.json",
        "VERSION": model_dir / "1",
    }
    for name, place in places.items():
        flags = [flag.replace(name, str(place)) for flag in flags]
    if not any(flag.startswith("--model_dir") for flag in flags):
        flags = [*flags, f"--model_dir={tmp_path / 'models'}"]
    assert export.main(flags) == 1
    error = capsys.readouterr().err.strip()
    assert sentence in error and len(error.splitlines()) == 1
    assert names(tmp_path) == []


def test_a_full_disk_leaves_nothing(run, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_saved_model", full)
    flags = [f"--run_dir={run}", f"--model_dir={tmp_path}"]
    assert export.main(flags) == 1
    error = capsys.readouterr().err
    assert "no version was published" in error
    assert "No space left on device" in error
    assert names(tmp_path) == [".lock"]


# === Processes ===


def start(run, model_dir, *flags):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    # As for a user, who has set no level of TensorFlow's log.
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    words = ("--run_dir", run, "--model_dir", model_dir, *flags)
    return subprocess.Popen(
        [sys.executable, "-m", "serving.export", *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_exporters_at_once_print_their_versions_and_nothing_else(run, tmp_path):
    processes = [start(run, tmp_path) for _ in range(2)]
    outputs = [process.communicate() for process in processes]
    assert {out for out, _ in outputs} == {
        f"{tmp_path / '1'}\n",
        f"{tmp_path / '2'}\n",
    }
    assert [error for _, error in outputs] == ["", ""]
    for number in ("1", "2"):
        assert_shows(tmp_path / number, run, "latest")


@pytest.mark.slow
def test_a_killed_exporter_leaves_nothing_that_is_served(run, tmp_path):
    process = start(run, tmp_path)
    while not list(tmp_path.glob(".staging-*/variables")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert find_versions(tmp_path) == {}
    assert len(names(tmp_path)) == 2
    assert export.export(run, tmp_path) == Path(tmp_path, "1")
    assert names(tmp_path) == [".lock", "1"]


@pytest.mark.slow
def test_an_interrupted_exporter_cleans_up(run, tmp_path):
    process = start(run, tmp_path)
    while not list(tmp_path.glob(".staging-*/variables")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert error == "interrupted\n"
    assert names(tmp_path) == [".lock"]
