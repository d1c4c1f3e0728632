"""The comparison with other implementations, by stand-ins for their clones.

The clones themselves are not here: the stand-ins have the modules, classes and
arguments that are used of them, and networks of a few numbers.
"""

import importlib.util
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

from transgan_tf import benchmark
from transgan_tf import benchmark_peers
from transgan_tf import peers

AUTHORS = """
import torch


class {name}(torch.nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.size = settings.img_size
        self.dense = torch.nn.Linear({inputs}, {outputs})

    def forward(self, x, *epoch):
        assert x.get_device() is not None
        return self.dense(x.flatten(1)).reshape({shape})
"""
GENERATOR = {
    "name": "Generator",
    "inputs": "settings.latent_dim",
    "outputs": "3 * self.size**2",
    "shape": "-1, 3, self.size, self.size",
}
DISCRIMINATOR = {
    "name": "Discriminator",
    "inputs": "3 * self.size**2",
    "outputs": "1",
    "shape": "-1, 1",
}
MILMOR = """
import tensorflow as tf

assert tf.keras.layers.Dense.__module__.startswith("tf_keras.")


class Generator(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = tf.keras.layers.Dense(32 * 32 * 3)

    def call(self, x, training):
        return [tf.reshape(self.dense(x), (-1, 32, 32, 3))]


class Discriminator(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = tf.keras.layers.Dense(1)

    def call(self, x, training):
        flat = tf.reshape(x, (-1, 32 * 32 * 3))
        return [self.dense(tf.nn.tanh(flat))]
"""


@pytest.fixture
def authors(tmp_path):
    models = tmp_path / "authors" / "models_search"
    models.mkdir(parents=True)
    helper = "from torch._six import container_abcs\n"
    # What its `__init__` would import is not there.
    (models / "__init__.py").write_text("import something_else\n")
    for file, what in (
        ("ViT_custom_rp", GENERATOR),
        ("ViT_custom_scale2_rp_noise", DISCRIMINATOR),
    ):
        (models / f"{file}.py").write_text(helper + AUTHORS.format(**what))
    return models.parent


@pytest.fixture
def milmor(tmp_path):
    (tmp_path / "milmor").mkdir()
    (tmp_path / "milmor" / "model.py").write_text(MILMOR)
    return tmp_path / "milmor"


def compare(*flags):
    """Returns the exit status, rows of numbers, and errors of the command."""
    # Ours at their real size would take minutes.
    code = """
    import sys
    from transgan_tf import benchmark_peers
    code = "from tests.test_benchmark_peers import serve; serve()"
    benchmark_peers.CODE = code
    sys.exit(benchmark_peers.main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, flags)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    rows = [
        [float(cell) for cell in line.strip("| ").split("|")[1:]]
        for line in done.stdout.splitlines()
        if line.endswith("|")
        and line[2:].startswith(("gen", "disc", "step", "peak"))
    ]
    return done.returncode, rows, done.stderr


def serve():
    """Serves with ours replaced by parts of nothing."""
    parts = dict.fromkeys(benchmark.PARTS, int)
    parts |= peers.TENSORFLOW_PEAK
    peers.MAKERS["ours"] = lambda batch_size, changes: parts
    benchmark_peers.serve()


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["authors", "milmor"])
def test_another_is_measured_beside_ours(peer, request):
    clone = request.getfixturevalue(peer)
    status, rows, errors = compare(f"--{peer}={clone}", "--batch_size=3")
    assert status == 0, errors
    *seconds, memory = rows
    assert len(seconds) == len(benchmark.PARTS)
    for ours, theirs, _ in seconds:
        assert theirs > ours > 0
    # GiB: Python with TensorFlow or PyTorch alone takes more than 0.1.
    assert min(memory[:2]) > 0.1


@pytest.mark.slow
def test_a_clone_of_something_else_ends_with_a_sentence(tmp_path):
    status, _, errors = compare(f"--milmor={tmp_path}")
    assert status == 1
    assert "No module named 'model'" in errors
    assert errors.endswith("error: the process of milmor ended; see above\n")


def test_clones_are_asked_for(tmp_path, capsys):
    assert benchmark_peers.main([]) == 1
    assert "--authors or --milmor" in capsys.readouterr().err
    assert benchmark_peers.main([f"--authors={tmp_path / 'none'}"]) == 1
    assert "is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--rounds=0", "--rounds must be positive, got 0"),
        ("--set=training.acumulation=2", "training.acumulation"),
        ("--batch_size=0", "training.batch_size"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    flag, sentence, milmor, capsys, monkeypatch
):
    monkeypatch.setattr(benchmark_peers, "Turn", None)
    assert benchmark_peers.main([f"--milmor={milmor}", flag]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and sentence in line


def test_a_gpu_is_waited_for_and_asked_for_its_memory():
    calls = []
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        synchronize=lambda: calls.append("wait"),
        reset_peak_memory_stats=lambda: calls.append("reset"),
        max_memory_allocated=lambda: 17,
    )
    torch = types.SimpleNamespace(cuda=cuda)
    parts = {"step": lambda: calls.append("step")}
    peers.settling(parts, torch)["step"]()
    peak = peers.torch_peak(torch)
    peak["reset"]()
    assert calls == ["step", "wait", "reset"]
    assert peak["memory"]() == 17


def test_pytorch_is_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert benchmark_peers.main([f"--authors={tmp_path}"]) == 1
    assert "pip install 'transgan-tf[torch]'" in capsys.readouterr().err


def test_the_table():
    seen = {"step": {"ours": 2.0, "authors": 5.0}}
    seen["memory"] = {"ours": 2**30, "authors": 3 * 2**29}
    lines = benchmark_peers.table("authors", 16, seen).splitlines()
    assert lines[2].endswith(", s | 2 | 5 | 2.50 |")
    assert lines[3].endswith(", GiB | 1 | 1.5 | 1.50 |")


def test_ours_is_changed_to_compare_with_the_port():
    changes = peers.CHANGES["milmor"]
    flags = benchmark_peers.Arguments(
        precision="bfloat16",
        jit=False,
        assignments=("training.accumulation=2",),
    ).changes()
    config = peers.our_config(16, [*changes, *flags])
    stages = config.discriminator.stages
    # 192 channels of the image at both scales.
    widths = [config.discriminator.embedding_width(n) for n in range(2)]
    assert (len(stages), widths) == (2, [192, 192])
    training = config.training
    assert (training.batch_size, training.generator_batch_size) == (16, 32)
    assert (training.n_critic, training.accumulation) == (4, 2)
    assert (training.precision, training.jit) == ("bfloat16", False)
