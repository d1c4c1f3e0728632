"""Growth of a generator: its cuts, the table, a real measurement."""

import pytest

from transgan_tf import benchmark_growth
from transgan_tf.benchmark_growth import Arguments


def test_the_generator_is_cut_after_each_resolution():
    cases = Arguments(assignments=("generator.stages.5.depth=1",)).cases()
    assert [case.image_size for case in cases] == [32, 64, 128, 256]
    assert [len(case.stages) for case in cases] == [3, 4, 5, 6]
    assert cases[-1].stages[-1].depth == 1


def test_rows_tell_of_the_one_before(monkeypatch, capsys):
    results = iter(
        [
            {"seconds": 0.25, "bytes": 3 * 2**20},
            {"seconds": 0.5, "bytes": 12 * 2**20},
            {"seconds": 2.5, "bytes": 15 * 2**20},
        ]
    )
    monkeypatch.setattr(
        benchmark_growth, "measure_apart", lambda *_: next(results)
    )
    assert benchmark_growth.main(["--preset=mnist", "--least=7"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| 7 x 7 | 250 |  | 3 |  |",
        "| 14 x 14 | 500 | 2.00 | 12 | 4.00 |",
        "| 28 x 28 | 2,500 | 5.00 | 15 | 1.25 |",
    ]


def test_no_rounds_measure_nothing(capsys):
    assert benchmark_growth.main(["--rounds=0"]) == 1
    assert "--rounds must be positive, got 0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_generator_is_measured_apart():
    def measured(window):
        flags = {"heads": 8, "stages.2.depth": 1, "stages.2.window": window}
        flags = tuple(f"generator.{k}={v}" for k, v in flags.items())
        (case,) = Arguments("mnist", 28, assignments=flags).cases()
        return benchmark_growth.measure_apart(case, True, 2)

    grid, whole = measured(7), measured(28)
    assert grid["seconds"] > 0
    # Attention over the whole map has scores of 8 heads of 28**2 by 28**2.
    assert whole["bytes"] > grid["bytes"] + 8 * 28**4 * 4
