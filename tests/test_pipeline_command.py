"""The command line `python -m pipeline.run`: what it refuses, what it plans."""

import sys

import pytest

from pipeline import run

SEVEN = [
    "ExampleGen",
    "StatisticsGen",
    "ExampleValidator",
    "Trainer",
    "Evaluator",
    "InfraValidator",
    "Pusher",
]


def call(tmp_path, capsys, *flags):
    """Returns the status and both outputs of a dry run."""
    places = [f"--pipeline_root={tmp_path}/root", f"--model_dir={tmp_path}/m"]
    status = run.main([*places, "--dry_run", *flags])
    assert not list(tmp_path.iterdir())
    return status, *capsys.readouterr()


def test_a_dry_run_of_the_digits_names_all_components(tmp_path, capsys):
    status, told, _ = call(tmp_path, capsys, "--dataset=mnist")
    *steps, last = told.splitlines()
    assert status == 0
    assert [line.split()[0] for line in steps] == SEVEN
    assert all("would run" in line for line in steps)
    assert "nothing was done" in last


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--dataset=cats"], "the dataset cats needs --preset"),
        (["--dataset=mnist", "--max_fid=-1"], "--max_fid must be at least 0"),
        (["--dataset=mnist", "--max_fid=inf"], "and finite, or None for no"),
        (["--dataset=mnist", "--max_drift=nan"], "--max_drift must be at leas"),
        (
            ["--dataset=mnist", "--model_dir=gs://bucket/m"],
            "--model_dir gs://bucket/m is no local path",
        ),
        (["--dataset=mnist", "--keep=0"], "--keep must be at least 1"),
        (["--dataset=mnist", "--set=training.stepz=3"], "training.stepz"),
        (["--dataset=mnist", "--until=Trainr"], "did you mean 'Trainer'?"),
        (
            ["--dataset=mnist", f"--model_dir={__file__}/models"],
            f"{__file__}/models cannot be written (Not a directory)",
        ),
        (
            ["--dataset=mnist", "--until=Trainer", "--require_push"],
            "--require_push does not go with --until",
        ),
    ],
)
def test_mistakes_get_one_sentence(flags, sentence, tmp_path, capsys):
    status, _, error = call(tmp_path, capsys, *flags)
    (line,) = error.splitlines()
    assert status == 1
    assert line.startswith("error: ")
    assert sentence in line


@pytest.mark.parametrize("flag", ["pipeline_root", "model_dir"])
def test_nothing_is_written_among_the_source(
    flag, tmp_path, tmp_path_factory, capsys
):
    photos = tmp_path_factory.mktemp("photos")
    inside = photos / "sub" / "made"
    flags = ["--dataset=cats", "--preset=celeba_64", f"--source={photos}"]
    status, _, error = call(tmp_path, capsys, *flags, f"--{flag}={inside}")
    assert status == 1
    (line,) = error.splitlines()
    assert f"--{flag} {inside} lies in the --source {photos}" in line


def test_unknown_flags_are_bad_usage(tmp_path, capsys):
    flags = ["--dataset=mnist", "--max_fids=3"]
    status, _, error = call(tmp_path, capsys, *flags)
    assert status == 2
    assert "unknown flag --max_fids, neither ours nor Beam's" in error
    assert "--max_fid" in error.partition("did you mean")[2]


def test_flags_of_beam_are_passed_on(tmp_path, capsys):
    flags = ["--dataset=mnist", "--direct_num_workers=1"]
    assert call(tmp_path, capsys, *flags)[0] == 0


def test_without_a_push_its_folder_does_not_matter(tmp_path, capsys):
    flags = ["--dataset=mnist", "--until=Trainer", f"--model_dir={__file__}"]
    assert call(tmp_path, capsys, *flags)[0] == 0


def test_what_training_would_miss_at_its_end_is_told_first(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    status, _, error = call(tmp_path, capsys, "--dataset=mnist")
    assert status == 1
    assert "tensorflow_serving is missing: pip install -e '.[serving]'" in error
    flags = ["--dataset=mnist", "--until=ExampleValidator"]
    assert call(tmp_path, capsys, *flags)[0] == 0


def test_a_bound_can_be_taken_away(tmp_path, capsys):
    flags = ["--dataset=mnist", "--max_fid_increase=None"]
    assert call(tmp_path, capsys, *flags)[0] == 0


def test_other_images_take_the_size_of_their_networks():
    arguments = run.Arguments("cats", preset="celeba_64", steps=7)
    settings = arguments.settings()
    assert (settings.image_size, settings.channels) == (64, 3)
    assert arguments.config().training.steps == 7
    assert run.Arguments("mnist", image_size=20).settings().image_size == 20


def test_the_record_has_the_flags_that_were_given(tmp_path):
    arguments = run.Arguments("mnist", steps=7, pipeline_root=tmp_path)
    assert arguments.options() == {
        "dataset": "mnist",
        "steps": 7,
        "pipeline_root": str(tmp_path),
    }
