"""The benchmark: a real server, for a moment."""

import os
import sys

import pytest

from serving import benchmark
from tests.serving.processes import exported_version

HEAD = ["", "p50 ms", "p90 ms", "p99 ms", "images/s", "of the loop"]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.slow
@pytest.mark.parametrize("signature", ["serving_default", "sample"])
def test_a_table_of_both_interfaces(signature, monkeypatch, capsys):
    # The server's process finds the code as this one does.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    flags = [f"--model_dir={exported_version().parent}", "--batch_size=3"]
    flags += [
        f"--signature={signature}",
        "--seconds=0.1",
        "--clients",
        "1",
        "2",
    ]
    assert benchmark.main(flags) == 0
    head, _, *rows = map(cells, capsys.readouterr().out.splitlines())
    assert head == HEAD
    names = [f"{way}, clients: {n}" for way in ("gRPC", "REST") for n in (1, 2)]
    assert [row[0] for row in rows] == ["loop", *names]
    for _, p50, p90, p99, speed, share in rows:
        assert 0 < float(p50) <= float(p90) <= float(p99)
        assert float(speed) > 0 and float(share) > 0
    assert rows[0][-1] == "1.00"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--seconds=0"], "--seconds must be above 0, got 0.0"),
        (["--batch_size=0"], "--batch_size must be at least 1, got 0"),
        (["--clients", "0"], "--clients must be at least 1, got (0,)"),
        (["--signature=draw"], "--signature"),
        ([], "holds no version"),
    ],
)
def test_mistakes_get_one_sentence(flags, sentence, tmp_path, capsys):
    assert benchmark.main([f"--model_dir={tmp_path}", *flags]) == 1
    error = capsys.readouterr().err.strip()
    assert sentence in error and len(error.splitlines()) == 1
