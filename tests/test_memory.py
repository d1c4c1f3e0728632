"""Runs that would not fit are refused; so is what runs out all the same."""

import re
import types

import numpy as np
import pytest
import tensorflow as tf

from tests.tiny import smallest_config
from transgan_tf import benchmark_memory
from transgan_tf import cli
from transgan_tf import memory
from transgan_tf import train
from transgan_tf import training
from transgan_tf.checked import UserError
from transgan_tf.estimate import training_memory
from transgan_tf.gan import TransGAN

ROOM = 2**30
IMAGES = np.zeros((8, 12, 12, 3), "uint8")


def strategy(*devices):
    """Returns what stands for a strategy of devices that are not here."""
    return types.SimpleNamespace(
        num_replicas_in_sync=len(devices),
        extended=types.SimpleNamespace(worker_devices=devices),
    )


# === What is refused ===


def test_a_run_that_does_not_fit_is_told_what_helps(monkeypatch):
    monkeypatch.setattr(memory, "host_memory", lambda: ROOM)
    config = smallest_config(batch_size=4096)
    with pytest.raises(memory.TooLarge) as error:
        memory.refuse_excess(config, tf.distribute.get_strategy())
    needed = training_memory(config).total / 2**30
    told = str(error.value)
    assert f"about {needed:.1f} GiB" in told
    assert "this machine has 1.0 GiB" in told
    for flag in (
        "--rematerialize",
        "--precision=bfloat16",
        "--set training.accumulation=N",
        "--batch_size",
        "--force",
    ):
        assert flag in told


def test_training_refuses_before_it_makes_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "host_memory", lambda: 1000)
    with pytest.raises(memory.TooLarge):
        training.train(smallest_config(), IMAGES, tmp_path / "run", "black")
    assert not (tmp_path / "run").exists()
    # Forced, it goes as far as the next check.
    monkeypatch.setattr(training, "open_run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training.train(
            smallest_config(), IMAGES, tmp_path / "run", "black", force=True
        )


@pytest.mark.parametrize("flags", [[], ["--force"]])
def test_the_flag_forces(flags, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(memory, "host_memory", lambda: 1000)

    def refuse(*arguments):
        raise UserError("forced")

    # What comes next.
    monkeypatch.setattr(training, "open_run", refuse)
    words = ["--dataset=mnist", f"--run_dir={tmp_path / 'run'}", *flags]
    assert train.main(words) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert ("forced" in told) == bool(flags)
    assert ("--force tries it all the same" in told) != bool(flags)


def test_what_fits_or_is_not_known_passes(monkeypatch):
    for room in (2**50, None):
        monkeypatch.setattr(memory, "host_memory", lambda room=room: room)
        memory.refuse_excess(smallest_config(), tf.distribute.get_strategy())


def test_replicas_on_one_host_share_its_memory(monkeypatch):
    config = smallest_config(batch_size=4096)
    shared = training_memory(config, 2)
    needed = shared.program + 2 * shared.on_host
    both = strategy("CPU:0", "CPU:1")
    monkeypatch.setattr(memory, "host_memory", lambda: needed)
    memory.refuse_excess(config, both)
    monkeypatch.setattr(memory, "host_memory", lambda: needed - 1)
    with pytest.raises(memory.TooLarge):
        memory.refuse_excess(config, both)


def test_on_gpus_it_is_the_smallest_that_counts(monkeypatch):
    config = smallest_config(batch_size=4096)
    needed = training_memory(config, 2).on_device
    # The host's memory does not matter then.
    monkeypatch.setattr(memory, "host_memory", lambda: 0)
    gpus = strategy("/device:GPU:0", "/device:GPU:1")
    limits = {"GPU:0": 2 * needed, "GPU:1": needed}
    monkeypatch.setattr(memory, "_gpu_limits", lambda: limits)
    memory.refuse_excess(config, gpus)
    limits["GPU:1"] -= 1
    with pytest.raises(memory.TooLarge, match="and a GPU has"):
        memory.refuse_excess(config, gpus)
    # One that is not trained on does not count.
    monkeypatch.setattr(memory, "_devices", lambda strategy: ["/device:GPU:0"])
    memory.refuse_excess(config, strategy("/device:GPU:0"))


# === What there is ===


def test_the_hosts_memory():
    room = memory.host_memory()
    assert 2**20 < room < 2**50


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


def test_control_groups_of_version_2(tmp_path):
    group(tmp_path, memory_max="max\n")
    stat = "file 5000\nanon 300\n"
    group(tmp_path / "a", memory_max="1000\n", memory_stat=stat)
    group(tmp_path / "a/b", memory_max="900\n", memory_stat="anon 50\n")
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    assert list(memory._group_rooms(tmp_path, own)) == [850, 700]


def test_control_groups_of_version_1(tmp_path):
    folder = tmp_path / "memory" / "a"
    group(folder, memory_stat="rss 1\ntotal_rss 200\n")
    (folder / "memory.limit_in_bytes").write_text("1000\n")
    own = tmp_path / "own"
    own.write_text("7:cpu:/a\n4:memory:/a\n0::/\n")
    assert list(memory._group_rooms(tmp_path, own)) == [800]


def test_without_control_groups(tmp_path):
    assert list(memory._group_rooms(tmp_path, tmp_path / "missing")) == []


# === What runs out all the same ===


# Of a graph, as TensorFlow 2.21 words it.
OUT_OF_MEMORY = """Graph execution error:

Detected at node MatMul defined at (most recent call last):
  File "train.py", line 10, in <module>

OOM when allocating tensor with shape[9] on CPU:0 by allocator cpu
\t [[{{node MatMul}}]]
Hint: If you want to see a list of allocated tensors when OOM happens, add
 [Op:__inference_function_40]"""


# Of XLA on a GPU, as users of other projects report it.
XLA_OUT_OF_MEMORY = """Graph execution error:

Detected at node StatefulPartitionedCall
Out of memory while trying to allocate 17 bytes.
BufferAssignment OOM Debugging.
Peak buffers:
\tSize: 8B
\t==========================
\t [[{{node StatefulPartitionedCall}}]] [Op:__inference_function_40]"""


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (XLA_OUT_OF_MEMORY, "Out of memory while trying to allocate 17 bytes"),
        (OUT_OF_MEMORY, "OOM when allocating tensor with shape[9] on CPU:0 by"),
        ("no room\nat all", "no room)"),
        ("", ")"),
    ],
)
def test_an_allocators_error_is_one_sentence(message, why, capsys):
    def act():
        raise tf.errors.ResourceExhaustedError(None, None, message)

    assert cli.answer(act) == cli.FAILED
    told = capsys.readouterr().err
    assert told.startswith(f"error: memory or disk ran out ({why}")
    assert "--rematerialize" in told and told.count("\n") == 1


# More float32 numbers than there are addresses.
TOO_MANY = 2**46


@pytest.mark.slow
def test_a_step_that_runs_out_loses_no_checkpoint(
    tmp_path, monkeypatch, capsys
):
    config = smallest_config(steps=5, checkpoint_every_steps=2)

    def act():
        return training.train(config, IMAGES, tmp_path / "run", "black")

    train_step = TransGAN.train_step

    def greedy(self, data):
        few, many = (tf.constant(n, tf.int64) for n in (1, TOO_MANY))
        numbers = tf.where(self.step.value < 3, few, many)
        # Used, since what no result depends on is not computed.
        allocated = tf.random.stateless_uniform([numbers], (1, 2))
        allocated = tf.reduce_min(allocated) >= 0
        return train_step(self, data * tf.cast(allocated, data.dtype))

    with monkeypatch.context() as patch:
        patch.setattr(TransGAN, "train_step", greedy)
        assert cli.answer(act) == cli.FAILED
    told = capsys.readouterr().err.strip().splitlines()[-1]
    why = f"OOM when allocating tensor with shape[{TOO_MANY}]"
    assert told.startswith(f"error: memory or disk ran out ({why}")
    for flag in ("--rematerialize", "--precision=bfloat16", "--batch_size"):
        assert flag in told
    latest = tmp_path / "run" / "checkpoints" / "latest"
    assert latest.read_text() == "step-000000002\n"
    assert cli.answer(act) == cli.DONE
    assert "goes on at step 2" in capsys.readouterr().out
    assert latest.read_text() == "step-000000005\n"


# === Command lines ===


def test_a_dry_run_prints_the_estimate(capsys):
    flags = ["--preset=celeba_64", "--dataset=celeba_64", "--dry_run"]
    found = []
    for more in (
        [],
        ["--rematerialize", "--precision=bfloat16"],
        ["--set=training.jit=false"],
    ):
        assert train.main([*flags, *more]) == 0
        line = capsys.readouterr().out.strip().splitlines()[-1]
        told = re.fullmatch(
            r"memory: about ([\d.]+) GiB for a process without GPU, "
            r"or ([\d.]+) GiB of one GPU \(estimates (with|without) XLA; "
            r"the larger update was within 25 % of what XLA plans .*",
            line,
        )
        host, gpu, compiled = told.groups()
        found.append((float(host), float(gpu), compiled))
    (host, gpu, _), (smaller_host, smaller_gpu, _), _ = found
    assert smaller_host < 0.6 * host and smaller_gpu < 0.6 * gpu < 0.6 * host
    assert [row[-1] for row in found] == ["with", "with", "without"]


def test_the_benchmark_of_one_case(monkeypatch, capsys):
    seen = {"base": 0, "first": 3 * ROOM, "second": ROOM, "seconds": 0.5}
    rest = iter([seen, seen | {"second": ROOM // 4}])
    monkeypatch.setattr(
        benchmark_memory, "measure_apart", lambda config: next(rest)
    )
    assert benchmark_memory.main(["--cases", "plain", "both"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[-2].startswith("| plain | 1.00 | 1.00 | 3.00 |")
    assert rows[-1].startswith("| both | 0.25 | 0.25 | 3.00 |")


@pytest.mark.slow
def test_the_benchmark_measures_a_process_of_its_own():
    config = smallest_config(n_critic=1)
    seen = benchmark_memory.measure_apart(config)
    assert 0 < seen["base"] < seen["second"] <= seen["first"]
    assert seen["seconds"] > 0
