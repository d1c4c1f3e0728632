"""What is told of a version that a pipeline pushed."""

import json
import shutil

import pytest

from pipeline import lineage
from tests import tiny_pipeline


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """Returns a folder with two versions and the root that they are from."""
    folder = tmp_path_factory.mktemp("pushed")
    (folder / "source").write_text("digits")
    for steps in (3, 5):
        values = {
            "source": str(folder / "source"),
            "folder": str(folder),
            "pipeline_root": str(folder / "root"),
            "steps": steps,
        }
        assert tiny_pipeline.main(values) == 0
    return folder


def asked(capsys, *words):
    """Returns the status and what is told."""
    status = lineage.main([str(word) for word in words])
    out, error = capsys.readouterr()
    return status, out or error


def test_a_version_tells_data_parameters_code_and_verdict(pushed, capsys):
    status, told = asked(capsys, pushed / "versions/2", "--json")
    found = json.loads(told)
    assert status == 0
    assert found["files"] == "those of the model"
    assert found["runs"] == [2]
    executions = {made["component"]: made for made in found["executions"]}
    # Causes first. The baseline's training is part of how it was judged.
    assert list(executions) == ["ExampleGen", "Trainer", "Evaluator", "Pusher"]
    numbers = [made["id"] for made in found["executions"]]
    assert numbers == [1, 5, 2, 6, 7]
    trainer = found["executions"][1]
    assert trainer["parameters"] == {"steps": 5}
    assert trainer["inputs"]["examples"]["uri"] == "ExampleGen/examples/1"
    assert trainer["outputs"]["model"]["properties"] == {"steps": 5}
    assert executions["Evaluator"]["outputs"]["blessing"]["properties"][
        "blessed"
    ]
    assert len(trainer["code"]) == 64
    packages = {"transgan-tf": "0.7", "sources": "f00"}
    # The card of these does not say.
    packages |= {"tensorflow": "unknown", "keras": "unknown"}
    assert found["packages"] == packages


def test_it_is_told_in_lines(pushed, capsys):
    status, told = asked(capsys, pushed / "versions/1")
    assert status == 0
    assert "its files are those of the model" in told
    assert "code: transgan-tf 0.7, sources f00, tensorflow unknown" in told
    assert "Trainer, execution 2, complete 20" in told
    assert "  parameter   steps: 3" in told
    assert f"  parameter   source: {pushed / 'source'}" in told


def test_a_copy_without_its_card_is_known_by_its_files(
    pushed, tmp_path, capsys
):
    copy = shutil.copytree(pushed / "versions/1", tmp_path / "copy")
    (copy / "model_card.json").unlink()
    status, told = asked(capsys, copy)
    assert (status, told.count("\n")) == (1, 1)
    assert "give --pipeline_root" in told
    root = f"--pipeline_root={pushed / 'root'}"
    status, told = asked(capsys, copy, root, "--json")
    assert status == 0
    components = [e["component"] for e in json.loads(told)["executions"]]
    assert components[-1] == "Pusher"
    assert json.loads(told)["executions"][1]["parameters"] == {"steps": 3}


def test_a_root_that_moved_is_named(pushed, tmp_path, capsys):
    moved = shutil.copytree(pushed / "root", tmp_path / "moved")
    copy = shutil.copytree(pushed / "versions/1", tmp_path / "copy")
    card = json.loads((copy / "model_card.json").read_text())
    card["pipeline"]["pipeline_root"] = str(tmp_path / "gone")
    (copy / "model_card.json").write_text(json.dumps(card))
    status, told = asked(capsys, copy)
    assert (status, told.count("\n")) == (1, 1)
    assert "gone holds no pipeline's record" in told
    assert asked(capsys, copy, f"--pipeline_root={moved}")[0] == 0


def test_a_version_that_was_changed_is_noticed(pushed, tmp_path, capsys):
    copy = shutil.copytree(pushed / "versions/1", tmp_path / "copy")
    (copy / "saved_model.pb").write_text("another")
    status, told = asked(capsys, copy)
    assert status == 0
    assert "its files are not those of the model" in told


def test_the_baselines_files_are_not_those_of_the_model(
    pushed, tmp_path, capsys
):
    copy = shutil.copytree(pushed / "versions/2", tmp_path / "copy")
    shutil.copy(pushed / "versions/1" / "saved_model.pb", copy)
    status, told = asked(capsys, copy)
    assert status == 0
    assert "its files are not those of the model" in told


def test_a_record_that_began_anew_is_not_taken_for_the_old_one(
    pushed, tmp_path, capsys
):
    """Where a number is that of the push of another model."""
    copy = shutil.copytree(pushed / "versions/1", tmp_path / "copy")
    card = json.loads((copy / "model_card.json").read_text())
    card["pipeline"]["execution"] = 7
    (copy / "model_card.json").write_text(json.dumps(card))
    status, told = asked(capsys, copy, "--json")
    assert status == 0
    found = json.loads(told)
    assert found["files"] == "those of the model"
    assert found["executions"][-1]["id"] == 4
    (copy / "saved_model.pb").write_text("another")
    status, told = asked(capsys, copy)
    assert (status, told.count("\n")) == (1, 1)
    assert "no execution in" in told


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda folder: None, "is no folder: name a version"),
        (lambda folder: folder.mkdir(), "was not pushed by a pipeline"),
    ],
)
def test_what_is_no_version_gets_one_sentence(
    prepare, sentence, tmp_path, capsys
):
    prepare(tmp_path / "version")
    status, told = asked(capsys, tmp_path / "version")
    assert (status, told.count("\n")) == (1, 1)
    assert sentence in told


def test_a_version_of_another_pipeline_is_not_found(pushed, tmp_path, capsys):
    other = tmp_path / "1"
    other.mkdir()
    (other / "saved_model.pb").write_text("another")
    root = f"--pipeline_root={pushed / 'root'}"
    status, told = asked(capsys, other, root)
    assert status == 1
    assert "no execution in" in told
