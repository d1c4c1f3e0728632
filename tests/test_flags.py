"""Flags of the preprocessing job: what is refused, and how it exits."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.options import UnknownFlag
from pipeline.options import beam_options
from pipeline.preprocess import Arguments
from tests import prepared
from tests.photos import photographs
from tests.photos import write_folder
from tests.photos import write_lmdb
from tests.prepared import prepare
from transgan_tf.manifest import load_manifest

ROOT = Path(__file__).resolve().parents[1]
MISSING = "error: the package {} is missing: pip install -e '.[pipeline]'"


@pytest.fixture
def photos(tmp_path):
    return write_folder(tmp_path / "photos", photographs(3))


def refusal(output, capsys, **flags):
    """Returns the status and the last line of an error."""
    status = prepared.run(output, **flags)
    assert not (output / "cats").exists()
    return status, capsys.readouterr().err.strip().splitlines()[-1]


# === Flags that nobody knows ===


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--imagesize=3"], "--imagesize, neither ours nor Beam's; did you"),
        # A flag of Beam's begins so.
        (["--direct_num=2"], "--direct_num, neither ours nor Beam's"),
        (["stray"], "stray, neither ours nor Beam's"),
    ],
)
def test_unknown_flags_are_bad_usage(words, told, photos, tmp_path, capsys):
    known = ["--dataset=cats", f"--source={photos}", "--image_size=16"]
    known += [f"--output_dir={tmp_path}"]
    assert prepared.preprocess.main([*known, *words]) == 2
    assert f"error: unknown flag {told}" in capsys.readouterr().err
    assert not (tmp_path / "cats").exists()


def test_a_label_is_not_taken_for_dataflows(photos, tmp_path, capsys):
    status, told = refusal(tmp_path, capsys, source=photos, label="a")
    assert status == 2
    assert told == "error: --label is Dataflow's: say --labels or --no_labels"
    flags = ["--runner=DataflowRunner", "--label", "team=a"]
    assert beam_options(flags, Arguments).get_all_options()["labels"]


def test_other_runners_have_flags_of_their_own():
    flags = ["--runner=OtherRunner", "--of_the_runner=1"]
    assert beam_options(flags, Arguments).display_data()
    with pytest.raises(UnknownFlag, match="unknown flag --direct_num,"):
        beam_options([*flags, "--direct_num", "2"], Arguments)


# === Flags that do not fit each other ===


@pytest.mark.parametrize("flag", ["split", "tfds_data_dir"])
def test_flags_of_builders_alone(flag, photos, tmp_path, capsys):
    flags = {"source": photos, flag: "test"}
    assert refusal(tmp_path, capsys, **flags) == (
        1,
        f"error: --{flag} is of tensorflow-datasets' builders, and the source "
        "is a folder: leave it out",
    )


def test_a_presets_split_is_not_for_another_source(photos, tmp_path):
    made = prepare(tmp_path, source=photos, dataset="stl10", crop="center")
    assert load_manifest(made).count("train") == 3


def test_quality_is_of_jpeg_alone(photos, tmp_path, capsys):
    status, told = refusal(tmp_path, capsys, source=photos, quality=50)
    assert status == 1
    assert told.startswith("error: --quality is of JPEG files, and png is to")
    made = prepare(tmp_path, source=photos, format="jpeg", quality=50)
    assert load_manifest(made).settings.quality == 50


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_folder_is_no_archive(kind, photos, tmp_path, capsys):
    flags = {"source": photos, "source_type": kind}
    assert refusal(tmp_path, capsys, **flags) == (
        1,
        f"error: {photos} is a folder and no {kind} archive: name the archive, "
        "or say --source_type=folder",
    )


def test_a_folder_whose_name_ends_like_an_archives(tmp_path):
    source = write_folder(tmp_path / "photos.zip", photographs(3))
    made = prepare(tmp_path, source=source, source_type="folder")
    assert load_manifest(made).source.kind == "folder"


# === A preset's usual source ===


def test_a_folder_named_digits_is_not_the_presets_source(tmp_path, monkeypatch):
    write_folder(tmp_path / "digits", photographs(3))
    monkeypatch.chdir(tmp_path)
    flags = {"dataset": "mnist", "image_size": 28, "max_images": 20}
    digits = prepare(tmp_path / "a", **flags)
    assert load_manifest(digits).source.kind == "digits"
    photos = prepare(tmp_path / "b", **flags, source="digits", crop="center")
    assert load_manifest(photos).source.kind == "folder"


def test_a_folder_named_cifar10_is_not_the_presets_source(
    tmp_path, monkeypatch, capsys
):
    write_folder(tmp_path / "cifar10", photographs(3))
    monkeypatch.chdir(tmp_path)
    # No builder is prepared there, and none is to be downloaded.
    monkeypatch.setattr(
        "tensorflow_datasets.builder", lambda name, data_dir: 1 / 0
    )
    assert prepared.run(tmp_path, dataset="cifar10", image_size=32) == 1
    error = capsys.readouterr().err
    assert "tensorflow-datasets cannot provide cifar10 (division" in error


# === Packages that are not installed ===


def without(package, monkeypatch, *modules):
    """Lets imports of a package fail, as they do if it is missing."""
    monkeypatch.setitem(sys.modules, package, None)
    for module in modules:
        monkeypatch.delitem(sys.modules, module, raising=False)


def test_lmdb_that_is_missing(tmp_path, monkeypatch, capsys):
    source = write_lmdb(tmp_path / "a_lmdb", photographs(3))
    without("lmdb", monkeypatch, "pipeline.sources.lsun")
    told = refusal(tmp_path, capsys, source=source)
    assert told == (1, MISSING.format("lmdb"))


def test_tensorflow_datasets_that_are_missing(tmp_path, monkeypatch, capsys):
    package = "tensorflow_datasets"
    without(package, monkeypatch, "pipeline.sources.tfds")
    for flags in ({}, {"source_type": "tfds"}):
        told = refusal(tmp_path, capsys, source="cifar10", **flags)
        assert told == (1, MISSING.format(package))


WITHOUT_BEAM = """
import sys
sys.modules["apache_beam"] = None
from pipeline import preprocess
sys.exit(preprocess.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("flags", "status", "told"),
    [
        (["--help"], 0, "--image_size"),
        (["--dataset=mnist"], 1, MISSING.format("apache_beam")),
    ],
)
def test_beam_that_is_missing(flags, status, told, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_BEAM, *flags],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == status
    assert told in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
