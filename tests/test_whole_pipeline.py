"""From images to a pushed version, in real processes that are killed."""

import json
import random
import subprocess
import time

import pytest

from tests.small_pipeline import content
from tests.small_pipeline import finish
from tests.small_pipeline import kill
from tests.small_pipeline import start
from tests.test_features import Network
from tests.test_features import save

pytestmark = pytest.mark.slow

PATIENCE = 300
# Kills come within this share of the time that the whole takes undisturbed, a
# minute or several; what they leave adds up until it is done.
KILLS, SHARE = 10, 0.6


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return save(tmp_path_factory.mktemp("features"), Network())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, features):
    """The folder of a pipeline that ran to its end at once."""
    folder, begun = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    printed = finish(folder, features)
    (folder / "seconds").write_text(str(time.monotonic() - begun))
    assert f"pushed as version 1: {folder}/models/digits/1" in printed
    return folder


def versions(folder):
    found = (folder / "models" / "digits").glob("[0-9]*")
    return sorted(path.name for path in found)


def kill_when(folder, features, pattern):
    """Starts the pipeline and kills it as soon as a file is there."""
    process = start(folder, features)
    deadline = time.monotonic() + PATIENCE
    while not any(folder.glob(pattern)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    kill(process)


def test_killed_twice_it_pushes_the_same(undisturbed, features, tmp_path):
    checkpoint = "root/Trainer/model_run/*/small/checkpoints/latest"
    kill_when(tmp_path, features, checkpoint)
    kill_when(tmp_path, features, "models/digits/1")
    printed = finish(tmp_path, features)
    assert "ExampleGen       cached" in printed
    assert "Trainer          cached" in printed
    assert versions(tmp_path) == ["1"]
    places = [f / "models" / "digits" / "1" for f in (undisturbed, tmp_path)]
    expected, found = map(content, places)
    assert found == expected


def test_killed_at_random_moments_it_pushes_the_same(
    undisturbed, features, tmp_path
):
    moments, kills, folders = random.Random(0), 0, [tmp_path / "0"]
    latest = SHARE * float((undisturbed / "seconds").read_text())
    while kills < KILLS:
        process = start(folders[-1], features)
        try:
            process.wait(moments.uniform(0, latest))
        except subprocess.TimeoutExpired:
            kill(process)
            kills += 1
        else:
            # It came to its end before: the next kills are another one's.
            printed, _ = process.communicate()
            assert process.returncode == 0, printed
            folders.append(tmp_path / str(len(folders)))
    expected = content(undisturbed / "models" / "digits" / "1")
    for folder in folders:
        finish(folder, features)
        assert versions(folder) == ["1"]
        assert content(folder / "models" / "digits" / "1") == expected


def test_the_content_tells_models_apart(undisturbed, features, tmp_path):
    expected = content(undisturbed / "models" / "digits" / "1")
    finish(tmp_path, features, "--set=training.seed=1")
    other = content(tmp_path / "models" / "digits" / "1")
    for part in ("card", "variables", "answers"):
        assert other[part] != expected[part]


def test_a_second_run_does_nothing(undisturbed, features):
    printed = finish(undisturbed, features)
    assert "nothing to do" in printed
    assert versions(undisturbed) == ["1"]


def test_what_is_worse_is_not_pushed(undisturbed, features):
    """An untrained network of another seed, against a bound that none meets."""
    flags = ["--set=training.seed=2", "--max_fid=0.0"]
    printed = finish(undisturbed, features, *flags)
    assert "Evaluator did not bless the model" in printed
    assert versions(undisturbed) == ["1"]
    (judged,) = (undisturbed / "root").glob("Evaluator/blessing/*/NOT_BLESSED")
    folder = undisturbed / "root/Evaluator/evaluation" / judged.parent.name
    told = json.loads((folder / "metrics.json").read_text())
    assert told["baseline"]["metrics"]["fid"] > 0
    kinds = [threshold["kind"] for threshold in told["thresholds"]]
    assert kinds == ["value", "change"]


def test_anomalies_stop_the_run(features, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text('{"classes": ["0", "1"]}')
    process = start(tmp_path, features, f"--schema={schema}")
    printed, _ = process.communicate()
    assert process.returncode == 1
    assert "the images are not as they should be" in printed
    assert not (tmp_path / "root" / "Trainer").exists()
