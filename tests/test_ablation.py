"""The ablation: its rows, what is done already, table and plot."""

import json

import pytest
from PIL import Image

from transgan_tf import ablate
from transgan_tf import ablation
from transgan_tf import train
from transgan_tf.checked import ConfigError
from transgan_tf.presets import get_preset

NETWORKS = ("generator", "discriminator")


def configs(*rows, **flags):
    return ablate.Arguments(
        rows=rows or tuple(ablation.ROWS), **flags
    ).configs()


def test_rows_differ_from_the_one_before_as_in_the_papers_table():
    rows = configs()
    found = []
    for config in rows.values():
        pairs = {
            (
                network.attention,
                network.norm == "token_scaling",
                network.relative_position,
            )
            for network in (config.generator, config.discriminator)
        }
        assert len(pairs) == 1
        judge = config.discriminator
        scales = judge.multi_scale, [stage.width for stage in judge.stages]
        found.append((*pairs.pop(), *scales, config.training.augmentation))
    one, two = (False, [96, 96]), (True, [48, 96])
    assert found == [
        ("standard", False, False, *one, ""),
        ("nystrom", False, False, *one, ""),
        ("axis", False, False, *one, ""),
        ("grid", False, False, *one, ""),
        ("grid", False, False, *two, ""),
        ("grid", True, False, *two, ""),
        ("grid", True, True, *two, ""),
        ("grid", True, True, *two, "translation,cutout,color"),
    ]


def test_all_rows_of_the_digits_learn_at_the_same_rates():
    rates = {
        (t.generator_learning_rate, t.discriminator_learning_rate)
        for rows in ablation.TABLES.values()
        for t in (ablation.base_config(row).training for row in rows)
    }
    assert rates == {(5e-4, 5e-4)}


def test_augmentation_is_left_out_where_there_is_some():
    some = ("training.augmentation=color",)
    rows = configs("relative_position", "augmentation", assignments=some)
    policies = [config.training.augmentation for config in rows.values()]
    assert policies == ["color", ""]
    last = rows["augmentation"]
    assert ablation.title("augmentation", last) == "the same, not augmented"


def test_any_preset_with_windows_has_the_rows():
    (config,) = configs("nystrom", preset="lsun_church", steps=7).values()
    assert (
        config.generator.attention_of(config.generator.stages[-1]) == "nystrom"
    )
    assert config.generator.attention_of(config.generator.stages[2]) == "grid"
    assert [s.width for s in config.discriminator.stages] == [384] * 3
    # Scored at the end, where the preset says nothing.
    training = config.training
    assert training.steps == 7
    assert config.evaluation.every_images == 7 * training.images_per_step


@pytest.mark.parametrize(
    ("preset", "rows", "sentence"),
    [
        ("cifar10", ("grid",), "generator.attention_above = 32 and disc"),
        ("mnist", ("standard",), "has windows: lower these by --set"),
    ],
)
def test_rows_that_would_be_the_same_are_refused(preset, rows, sentence):
    with pytest.raises(ConfigError, match=sentence):
        configs(*rows, preset=preset)


def test_a_base_of_one_scale_has_no_row_of_several():
    flags = {
        "preset": "mnist",
        "assignments": ("generator.attention_above=7",),
    }
    assert configs("grid", **flags)
    with pytest.raises(ConfigError, match="row multi_scale needs a base whose"):
        configs("multi_scale", **flags)


# === Runs ===


def test_each_run_trains_by_its_rows_file(tmp_path):
    arguments = ablate.Arguments(
        output_dir=tmp_path, rows=("axis", "grid"), seeds=(3, 5, 3), steps=4
    )
    rows = arguments.configs()
    cells = arguments.cells(rows)
    assert [(cell.row, cell.seed) for cell in cells] == [
        ("axis", 3),
        ("grid", 3),
        ("axis", 5),
        ("grid", 5),
    ]
    last = cells[-1]
    (tmp_path / "grid.json").write_text(rows["grid"].to_json())
    assert last.training.config() == last.config
    assert last.config.training.seed == 5 and last.config.training.steps == 4
    words = ablate.command(last.training)
    assert words[1:] == [
        "-m",
        "transgan_tf.train",
        "--dataset=mnist",
        "--data_dir=data",
        f"--run_dir={tmp_path / 'grid-5'}",
        f"--config_file={tmp_path / 'grid.json'}",
        "--seed=5",
    ]


def made_up(cell, step, fid, dataset="mnist"):
    """Writes a run that has a score at one step."""
    run_dir = cell.training.run_dir
    run_dir.mkdir(exist_ok=True)
    config = cell.config.override([f"dataset={dataset}, 5 images"])
    (run_dir / "config.json").write_text(config.to_json())
    metrics = {"fid": fid, "is": 2 * fid, "is_std": 0.5}
    record = {"step": step, "evaluation": {"metrics": metrics}}
    (run_dir / "metrics.jsonl").write_text(json.dumps(record) + "\n")


def test_only_what_is_missing_is_trained(tmp_path, monkeypatch, capsys):
    flags = ["--steps=4", "--rows=axis", "grid", "--seeds=0", "1"]
    flags.append(f"--output_dir={tmp_path}")
    done = ablate.Arguments(
        output_dir=tmp_path, rows=("axis", "grid"), seeds=(0, 1), steps=4
    )
    cells = done.cells(done.configs())
    made_up(cells[0], 4, 11.0)
    # One that is not at its end, and one of another configuration.
    made_up(cells[1], 3, 12.0)
    other = cells[2].config.override(["training.batch_size=2"])
    made_up(cells[2], 4, 13.0)
    (cells[2].training.run_dir / "config.json").write_text(other.to_json())
    made_up(cells[3], 4, 14.0, dataset="cats")
    trained = []

    def train_one(run):
        trained.append(run.run_dir.name)
        # One of them fails.
        if run.run_dir.name == "axis-1":
            return 1
        made_up(cells[[c.training for c in cells].index(run)], 4, 17.0)
        return 0

    monkeypatch.setattr(ablate, "train", train_one)
    assert ablate.main(flags) == 1
    assert trained == ["grid-0", "axis-1", "grid-1"]
    shown = capsys.readouterr()
    assert f"no scores, as told above: {tmp_path / 'axis-1'}\n" in shown.err
    made_up(cells[2], 4, 13.0)
    assert ablate.main(flags) == 0
    assert len(trained) == 3
    table = (tmp_path / "ablation.md").read_text()
    assert capsys.readouterr().out == table
    assert (
        "| (C) axis self-attention | 351,585 | 284,833 | 2 | 12 ± 1.4" in table
    )
    assert (
        "| (D) grid self-attention | 334,097 | 247,873 | 2 | 17 ± 0 |" in table
    )
    saved = json.loads((tmp_path / "ablation.json").read_text())
    assert [(r["row"], r["seed"], r["metrics"]["fid"]) for r in saved] == [
        ("axis", 0, 11.0),
        ("grid", 0, 17.0),
        ("axis", 1, 13.0),
        ("grid", 1, 17.0),
    ]
    with Image.open(tmp_path / "ablation.png") as picture:
        assert picture.width > 600


def test_a_signal_ends_the_ablation_with_the_runs_status(tmp_path, monkeypatch):
    statuses = [0, 143]
    monkeypatch.setattr(ablate, "train", lambda run: statuses.pop(0))
    assert ablate.main([f"--output_dir={tmp_path}", "--steps=4"]) == 143
    assert not statuses


def test_a_run_that_a_signal_ends_at_its_start_ends_the_ablation(
    tmp_path, monkeypatch
):
    started = []

    def words(run):
        started.append(run)
        return ["sh", "-c", "kill -TERM $$"]

    monkeypatch.setattr(ablate, "command", words)
    assert ablate.main([f"--output_dir={tmp_path}", "--steps=4"]) == 143
    assert len(started) == 1


def test_a_dataset_that_is_not_there_is_told_once(tmp_path, capsys):
    folder = tmp_path / "none"
    flags = ["--dataset=cats", "--preset=celeba_64", f"--output_dir={folder}"]
    assert ablate.main(flags) == 1
    assert capsys.readouterr().err.count("cats") == 1
    assert not folder.exists()


def test_dry_run_lists_and_writes_nothing(tmp_path, capsys):
    folder = tmp_path / "none"
    flags = [f"--output_dir={folder}", "--dry_run", "--seeds=7"]
    assert ablate.main([*flags, "--rows=nystrom", "grid"]) == 0
    out = capsys.readouterr().out
    assert "| (B) Nyström self-attention | 334,097 | 247,873 | 0 |" in out
    assert out.endswith(f"{folder / 'nystrom-7'}\n{folder / 'grid-7'}\n")
    assert not folder.exists()


def test_table_of_one_run_and_of_none():
    rows = configs("axis", "grid")
    results = [{"row": "grid", "seed": 0, "metrics": {"fid": 1234.5}}]
    assert ablation.table(rows, results).splitlines() == [
        "| row | generator | discriminator | runs | fid |",
        "| --- | --- | --- | --- | --- |",
        "| (C) axis self-attention | 351,585 | 284,833 | 0 | none |",
        "| (D) grid self-attention | 334,097 | 247,873 | 1 | 1234 |",
    ]


# === The file of a configuration ===


def test_train_takes_a_configurations_file(tmp_path):
    path = tmp_path / "config.json"
    config = get_preset("stl10").config.override(["dataset=old"])
    path.write_text(config.to_json())
    found = train.Arguments(config_file=path, steps=3).config()
    assert found == config.override(["dataset=", "training.steps=3"])
    with pytest.raises(ConfigError, match="exclude each other"):
        train.Arguments(config_file=path, preset="mnist").config()
    with pytest.raises(ConfigError, match="lost.json cannot be read"):
        train.Arguments(config_file=tmp_path / "lost.json").config()


# === A real one ===

TINY = (
    "generator.stages.0.depth=1",
    "generator.stages.2.depth=0",
    "training.batch_size=4",
    "training.jit=false",
    "evaluation.num_images=300",
)


@pytest.mark.slow
def test_an_ablation_of_two_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--rows=nystrom", "multi_scale", "--seeds=0", "--steps=2"]
    flags += [f"--set={assignment}" for assignment in TINY]
    assert ablate.main(flags) == 0
    folder = tmp_path / "ablation"
    table = (folder / "ablation.md").read_text()
    assert table.count(" | 1 | ") == 2
    logs = [folder / row / "log.txt" for row in ("nystrom-0", "multi_scale-0")]
    before = [log.read_bytes() for log in logs]
    assert ablate.main(flags) == 0
    assert [log.read_bytes() for log in logs] == before
    assert (folder / "ablation.md").read_text() == table
