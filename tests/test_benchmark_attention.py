"""Memory and time of attentions: the table, the plot, a real measurement."""

import pytest
from PIL import Image

from transgan_tf import benchmark_attention
from transgan_tf import memory
from transgan_tf.checked import UserError


@pytest.fixture
def measured(monkeypatch):
    """Stands for the processes; returns the configurations that they had."""
    configs = []

    def measure_apart(config, jit):
        configs.append((config, jit))
        return {"bytes": 3 * 2**20, "seconds": 0.0125}

    monkeypatch.setattr(benchmark_attention, "measure_apart", measure_apart)
    # The standard scores of 64 x 64 tokens take 3 * 256 MiB.
    monkeypatch.setattr(memory, "host_memory", lambda: 700 * 2**20)
    return configs


def test_what_does_not_fit_is_left_out(measured, tmp_path, capsys):
    path = tmp_path / "new" / "attention.png"
    flags = [f"--output={path}", "--resolutions=32", "64", "--no_jit"]
    assert benchmark_attention.main(flags) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| attention | map | MiB | ms |",
        "|---|---|---|---|",
        "| standard | 32 x 32 | 3 | 12.5 |",
        "| standard | 64 x 64 | does not fit: about 0.8 GiB | |",
        "| grid | 32 x 32 | 3 | 12.5 |",
        "| grid | 64 x 64 | 3 | 12.5 |",
        str(path),
    ]
    kinds = [(c.attention, c.stages[0].window, jit) for c, jit in measured]
    assert kinds == [("standard", 16, False)] + [("grid", 16, False)] * 2
    with Image.open(path) as picture:
        assert picture.width > 600


def test_a_case_that_fails_leaves_the_others(
    measured, tmp_path, capsys, monkeypatch
):
    measure_apart = benchmark_attention.measure_apart

    def kill(config, jit):
        if config.attention == "standard":
            raise UserError("the measuring process ended with -9: no message")
        return measure_apart(config, jit)

    monkeypatch.setattr(benchmark_attention, "measure_apart", kill)
    path = tmp_path / "attention.png"
    flags = [f"--output={path}", "--resolutions=32"]
    assert benchmark_attention.main(flags) == 0
    assert capsys.readouterr().out.splitlines()[2:4] == [
        "| standard | 32 x 32 | not measured: the measuring process ended with "
        "-9: no message | |",
        "| grid | 32 x 32 | 3 | 12.5 |",
    ]
    assert path.is_file()


def test_the_plots_name_is_checked_first(measured, capsys):
    assert benchmark_attention.main(["--output=attention.txt"]) == 1
    assert "must name a .png or .svg, got '.txt'" in capsys.readouterr().err
    assert not measured


@pytest.mark.slow
def test_standard_attention_takes_the_memory_of_its_scores():
    arguments = benchmark_attention.Arguments(width=8, window=8)
    found = {
        kind: benchmark_attention.measure_apart(
            arguments.config(kind, 48), True
        )
        for kind in ("standard", "grid")
    }
    # Scores of 81 MiB against 2 MiB, of which several copies are there; the
    # program is in both.
    more = found["standard"]["bytes"] - found["grid"]["bytes"]
    assert more > 2 * 79 * 2**20
    assert 0 < found["grid"]["seconds"] < found["standard"]["seconds"]
