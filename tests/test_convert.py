"""The authors' checkpoints to runs of ours, and back, through real files."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving import export
from tests import authors
from tests.test_features import Network
from tests.test_features import save
from tests.test_parity import image_of
from transgan_tf import convert
from transgan_tf import evaluate
from transgan_tf import pth
from transgan_tf import sample
from transgan_tf.checked import differences
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.checkpoints import RunError
from transgan_tf.checkpoints import load_arrays
from transgan_tf.checkpoints import load_config
from transgan_tf.checkpoints import load_generator
from transgan_tf.checkpoints import network_state
from transgan_tf.configs import Config
from transgan_tf.discriminator import Discriminator
from transgan_tf.gan import make_gan
from transgan_tf.presets import get_preset
from transgan_tf.runs import close_log
from transgan_tf.runs import open_run
from transgan_tf.training import train

PRESETS = {"cifar10": "cifar10", "stl10": "stl10", "church256": "lsun_church"}
# The authors' CIFAR-10 networks at 8 px.
TINY = (
    "generator.latent_dim=5",
    "generator.stages.0.resolution=2",
    "generator.stages.0.window=2",
    "generator.stages.0.width=64",
    "generator.stages.0.depth=2",
    "generator.stages.1.resolution=4",
    "generator.stages.1.window=4",
    "generator.stages.1.width=16",
    "generator.stages.1.depth=1",
    "generator.stages.2.resolution=8",
    "generator.stages.2.window=8",
    "generator.stages.2.width=4",
    "generator.stages.2.depth=1",
    "discriminator.image_size=8",
    "discriminator.stages.0.resolution=4",
    "discriminator.stages.0.window=4",
    "discriminator.stages.0.width=24",
    "discriminator.stages.0.depth=1",
    "discriminator.stages.1.resolution=2",
    "discriminator.stages.1.window=2",
    "discriminator.stages.1.width=32",
    "discriminator.stages.1.depth=1",
)
TINY_FLAGS = [f"--set={assignment}" for assignment in TINY]
TINY_CONFIG = get_preset("cifar10").config.override(TINY)
TINY_STATES = authors.state_dicts(
    TINY_CONFIG.generator, TINY_CONFIG.discriminator
)
# What the authors' training saves beside the networks.
MORE = {
    "epoch": 3,
    "gen_model": "ViT_custom_rp",
    "best_fid": np.float64(9.26),
    "path_helper": {"prefix": "logs/cifar", "ckpt_path": "logs/cifar/Model"},
}


def convert_file(file, run_dir, *flags):
    """Converts a file of tiny networks; returns the exit status."""
    flags = [f"--run_dir={run_dir}", "--dataset=cifar10", *TINY_FLAGS, *flags]
    return convert.main([f"--checkpoint={file}", *flags])


def refusal(file, tmp_path, capsys):
    """Returns what is told of a file that cannot be converted."""
    assert convert_file(file, tmp_path / "run") == 1
    assert not (tmp_path / "run").exists()
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: {file}")
    return error


def read_arrays(run_dir):
    newest = CheckpointFolder(Path(run_dir, "checkpoints")).latest()
    with np.load(newest / "state.npz") as archive:
        return {name: archive[name] for name in archive.files}


def optimizer_state():
    """Returns what Adam's state dict is made of, as PyTorch 1.7 saved it."""
    import torch

    moments = {"exp_avg": torch.ones(2, 3), "exp_avg_sq": torch.ones(2, 3)}
    group = {"lr": 1e-4, "betas": (0.0, 0.99), "amsgrad": False, "params": [0]}
    return {"state": {0: {"step": 7, **moments}}, "param_groups": [group]}


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("released") / "tiny.pth"
    more = MORE | {"dis_optimizer": optimizer_state()}
    return authors.write_pth(file, TINY_STATES, **more)


@pytest.fixture(scope="module")
def tiny_run(tiny_file, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    assert convert_file(tiny_file, run_dir) == 0
    return run_dir


# === The golden numbers ===


@pytest.fixture(
    scope="module",
    params=[
        "cifar10",
        pytest.param("stl10", marks=pytest.mark.slow),
        pytest.param("church256", marks=pytest.mark.slow),
    ],
)
def golden(request, tmp_path_factory):
    """A golden case, its state dicts, and the run made of their file."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    case = authors.load_case(name)
    configs = authors.network_configs(name, case)
    states = authors.state_dicts(*configs)
    # The Church file as of one device.
    prefix = "" if name == "church256" else "module."
    file = authors.write_pth(folder / "F.pth", states, prefix, **MORE)
    config = get_preset(PRESETS[name]).config
    changes = differences(config, Config("", *configs, config.training))
    flags = [
        f"--set={field}={change.partition(' -> ')[2]}"
        for field, _, change in (line.partition(": ") for line in changes)
        if field.startswith(("generator", "discriminator"))
    ]
    flags += [f"--dataset={PRESETS[name]}", f"--checkpoint={file}"]
    assert convert.main([f"--run_dir={folder / 'run'}", *flags]) == 0
    return case, states, folder / "run"


def test_converted_networks_give_the_golden_numbers(golden):
    case, _, run_dir = golden
    generator = load_generator(run_dir)
    images = generator(case["z"]).numpy().transpose(0, 3, 1, 2)
    gap = np.abs(images - case["generated"]).max()
    assert gap <= 1e-4 * np.abs(case["generated"]).max()
    discriminator = load_discriminator(run_dir)
    logits = discriminator(image_of(case, discriminator.config.image_size))
    gap = np.abs(logits - case["logits"]).max()
    assert gap <= 1e-4 * np.abs(case["logits"]).max()


def our_path(name):
    """Returns where a block's noise strength is here, by the authors' name."""
    if name.startswith("last_block"):
        return "class_block/noise/strength"
    stage, block = re.match(r"blocks_(\d)\.(?:block\.)?(\d+)\.", name).groups()
    return f"stage_{int(stage) - 1}/block_{block}/noise/strength"


def test_each_block_has_its_own_noise(golden):
    _, states, run_dir = golden
    networks = {
        "avg_gen_state_dict": load_generator(run_dir),
        "dis_state_dict": load_discriminator(run_dir),
    }
    seen = set()
    for part, network in networks.items():
        strengths = {
            weight.path.partition("/")[2]: float(weight.numpy())
            for weight in network.weights
            if weight.path.endswith("noise/strength")
        }
        expected = {
            our_path(name): float(value)
            for name, value in states[part].items()
            if name.endswith("noise_strength_1")
        }
        assert strengths == expected
        seen |= set(strengths.values())
    assert len(seen) > 3


def load_discriminator(run_dir):
    config = load_config(run_dir).discriminator
    discriminator = Discriminator(config)
    discriminator.build((None, config.image_size, config.image_size, 3))
    newest = CheckpointFolder(run_dir / "checkpoints").latest()
    load_arrays(newest, network_state("discriminator", discriminator))
    return discriminator


def test_the_way_back_gives_the_file_to_the_last_bit(golden, tmp_path):
    import torch

    _, states, run_dir = golden
    file = tmp_path / "new" / "F.pth"
    flags = [f"--run_dir={run_dir}", f"--to_pytorch={file}"]
    assert convert.main(flags) == 0
    written = torch.load(file, weights_only=True)
    assert written.keys() == states.keys()
    for part, state in states.items():
        assert list(written[part]) == list(state)
        for name, value in state.items():
            tensor = written[part][name].numpy()
            assert tensor.dtype == value.dtype, name
            np.testing.assert_array_equal(tensor, value, name, strict=True)
    assert [path.name for path in file.parent.iterdir()] == ["F.pth"]


# === What a run of it is ===


def test_the_run_says_where_it_is_from(tiny_file, tiny_run):
    digest = subprocess.run(
        ["sha256sum", tiny_file], capture_output=True, text=True, check=True
    )
    config = load_config(tiny_run)
    source = f"tiny.pth, SHA-256 {digest.stdout.split()[0]}"
    assert config.converted_from == source
    assert config.dataset == "cifar10"
    assert config.generator == TINY_CONFIG.generator
    assert [path.name for path in tiny_run.parent.iterdir()] == ["tiny"]


def test_a_converted_run_is_sampled(tiny_run, tmp_path):
    flags = [f"--run_dir={tiny_run}", "--num_images=3"]
    assert sample.main([*flags, f"--output={tmp_path / 'grid.png'}"]) == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert np.asarray(grid).std() > 10


@pytest.mark.slow
def test_a_converted_run_is_exported(tiny_run, tmp_path):
    model = tmp_path / "models" / "tiny"
    flags = [f"--run_dir={tiny_run}", f"--model_dir={model}"]
    assert export.main(flags) == 0
    assert "tiny.pth, SHA-256" in (model / "1/model_card.json").read_text()


@pytest.mark.slow
def test_a_converted_run_is_scored(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "data" / "cifar10"
    pictures.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, 256, (8, 8, 3), "uint8")
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    features = save(tmp_path / "net", Network())
    flags = [f"--features={features}", "--metrics=fid", "--num_images=6"]
    assert evaluate.main([f"--run_dir={tiny_run}", *flags]) == 0
    assert '"step": 0' in capsys.readouterr().out


@pytest.mark.usefixtures("freed_graphs")
def test_training_begins_with_the_weights_and_nothing_else(tiny_run):
    gan = make_gan(TINY_CONFIG.override(["training.jit=false"]))
    assert CheckpointFolder(tiny_run / "checkpoints").restore(gan)
    arrays = read_arrays(tiny_run)
    for part in ("generator", "ema_generator", "discriminator"):
        for name, variable in network_state(part, getattr(gan, part)).items():
            np.testing.assert_array_equal(variable, arrays.pop(name), name)
    assert list(arrays) == ["networks_alone"]
    position = "stage_0/position/embedding"
    average = TINY_STATES["avg_gen_state_dict"]["pos_embed_1"]
    held = network_state("generator", gan.generator)[f"generator/{position}"]
    np.testing.assert_array_equal(held, average + 1)
    assert int(gan.step) == int(gan.generator_optimizer.iterations) == 0


def test_the_recipe_may_change_before_training_but_not_the_networks(
    tiny_run, tmp_path
):
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    config = TINY_CONFIG.override(
        ["dataset=cats, 6 images", "training.batch_size=4"]
    )
    with pytest.raises(RunError, match="generator.latent_dim: 5 -> 7"):
        open_run(run_dir, config.override(["generator.latent_dim=7"]))
    assert load_config(run_dir) == load_config(tiny_run)
    open_run(run_dir, config)
    close_log()
    source = load_config(tiny_run).converted_from
    assert load_config(run_dir) == replace(config, converted_from=source)


@pytest.mark.slow
def test_training_goes_on_from_a_converted_run(tiny_file, tmp_path):
    run_dir = tmp_path / "run"
    assert convert_file(tiny_file, run_dir) == 0
    source = load_config(run_dir).converted_from
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 8, 8, 3), "uint8")
    recipe = ("steps=1", "batch_size=2", "n_critic=1", "jit=false")
    config = TINY_CONFIG.override([f"training.{change}" for change in recipe])
    assert train(config, images, run_dir, "noise") == 0
    trained = load_config(run_dir)
    assert trained.converted_from == source
    assert trained.dataset.startswith("noise, 24 images")
    assert (run_dir / "checkpoints" / "latest").read_text().strip()[-1] == "1"
    with pytest.raises(RunError, match="training.n_critic: 1 -> 3"):
        other = config.override(["training.n_critic=3"])
        train(other, images, run_dir, "noise")
    # Adam moves each weight by about the rate, 1e-4.
    name = "generator/stage_0/position/embedding"
    average = TINY_STATES["avg_gen_state_dict"]["pos_embed_1"]
    moved = np.abs(read_arrays(run_dir)[name] - (average + 1))
    assert 0 < moved.max() < 1e-3


# === What a file may lack ===


def lacking(*parts):
    return {k: v for k, v in TINY_STATES.items() if k not in parts}


@pytest.mark.parametrize(
    ("lacks", "note", "source"),
    [
        (
            "avg_gen_state_dict",
            "it has no avg_gen_state_dict: gen_state_dict is the moving "
            "average, too",
            "gen_state_dict",
        ),
        (
            "gen_state_dict",
            "it has no gen_state_dict: avg_gen_state_dict is the generator, "
            "too",
            "avg_gen_state_dict",
        ),
    ],
)
def test_either_generator_stands_for_both(
    lacks, note, source, tmp_path, capsys
):
    file = authors.write_pth(tmp_path / "F.pth", lacking(lacks))
    assert convert_file(file, tmp_path / "run") == 0
    assert capsys.readouterr().err == f"note: {file}: {note}\n"
    arrays = read_arrays(tmp_path / "run")
    for part in ("generator", "ema_generator"):
        held = arrays[f"{part}/from_latent/bias"]
        np.testing.assert_array_equal(held, TINY_STATES[source]["l1.bias"])


def test_without_a_discriminator_a_run_is_not_trained(tmp_path, capsys):
    # A generator's state dict alone, as the authors' test takes it, too.
    states = {
        f"module.{k}": v for k, v in TINY_STATES["gen_state_dict"].items()
    }
    file = tmp_path / "G.pth"
    pth.write(file, states)
    assert convert_file(file, tmp_path / "run") == 0
    assert "but not trained" in capsys.readouterr().err
    load_generator(tmp_path / "run")
    with pytest.raises(RunError, match="a file without a discriminator"):
        load_discriminator(tmp_path / "run")
    flags = [f"--run_dir={tmp_path / 'run'}", f"--to_pytorch={file}"]
    assert convert.main(flags) == 0
    written = f"{file}: gen_state_dict, avg_gen_state_dict\n"
    assert capsys.readouterr().out.endswith(written)
    assert list(pth.read(file)) == ["gen_state_dict", "avg_gen_state_dict"]


def test_older_files_without_the_index_and_with_filters_convert(tmp_path):
    states = {
        part: {k: v for k, v in state.items() if "position_index" not in k}
        for part, state in TINY_STATES.items()
    }
    states["dis_state_dict"]["Hz_fbank"] = np.ones((4, 3), "float32")
    file = authors.write_pth(tmp_path / "F.pth", states)
    assert convert_file(file, tmp_path / "run") == 0


# === What is refused ===


def test_all_that_does_not_fit_is_named_at_once(tmp_path, capsys):
    states = {part: dict(state) for part, state in TINY_STATES.items()}
    generator = states["gen_state_dict"]
    generator["l1.weight"] = generator["l1.weight"][:, :3]
    del generator["blocks.block.1.attn.qkv.weight"], generator["pos_embed_3"]
    generator["extra.weight"] = np.ones(3, "float32")
    index = "blocks_1.0.attn.relative_position_index"
    states["dis_state_dict"][index] = states["dis_state_dict"][index].T
    states["dis_state_dict"]["head.bias"] = np.ones(1, "int64")
    states["dis_state_dict"]["cls_token"] = np.float32(1)
    file = authors.write_pth(tmp_path / "F.pth", states)
    head, *lines = refusal(file, tmp_path, capsys).splitlines()
    assert "is of other networks; --preset and --set say of which" in head
    assert [line.strip() for line in lines] == [
        "gen_state_dict: lacks pos_embed_3",
        "gen_state_dict: lacks blocks.block.1.attn.qkv.weight",
        "gen_state_dict: has unexpected extra.weight",
        "gen_state_dict: has misshapen l1.weight (256, 3) instead of (256, 5)",
        "dis_state_dict: has misshapen cls_token () instead of (1, 1, 32)",
        f"dis_state_dict: has other values or another type in {index}",
        "dis_state_dict: has other values or another type in head.bias",
    ]


def test_celeba_hq_is_refused_by_name(tmp_path, capsys):
    with np.load(authors.GOLDEN / "state_dicts.npz") as golden:
        rows = json.loads(str(golden["celeba_hq_generator"]))
    state = {name: np.ones(1, "float32") for name, _ in rows}
    file = tmp_path / "hq.pth"
    authors.write_pth(file, {"avg_gen_state_dict": state})
    error = refusal(file, tmp_path, capsys)
    assert "is of the authors' CelebA-HQ generator" in error
    assert len(error.splitlines()) == 1


class Payload:
    """Makes a file where it is unpickled as Python does."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return os.mkdir, (self.file,)


@pytest.mark.parametrize("archive", [True, False])
def test_a_file_that_would_run_code_is_refused_and_not_run(
    archive, tmp_path, capsys
):
    import torch

    file, trace = tmp_path / "evil.pth", tmp_path / "trace"
    content = {"path_helper": Payload(trace)}
    torch.save(content, file, _use_new_zipfile_serialization=archive)
    error = refusal(file, tmp_path, capsys)
    assert error.endswith(
        "is refused, since reading it would call posix.mkdir: only tensors "
        "and plain data are read, and nothing was run"
    )
    assert not trace.exists()
    # It would have.
    torch.load(file, weights_only=False)
    assert trace.exists()


def test_a_pickle_by_itself_is_not_run_either(tmp_path, capsys):
    file, trace = tmp_path / "evil.pth", tmp_path / "trace"
    file.write_bytes(pickle.dumps(Payload(trace)))
    assert len(refusal(file, tmp_path, capsys).splitlines()) == 1
    assert not trace.exists()


def test_objects_are_refused_by_name(tmp_path, capsys):
    import torch

    torch.save(torch.nn.Linear(2, 3), tmp_path / "F.pth")
    error = refusal(tmp_path / "F.pth", tmp_path, capsys)
    assert "would call torch.nn.modules.linear.Linear" in error


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is damaged, or no file of PyTorch's"),
        (b"<html>not found</html>" * 9, "is damaged, or no file of PyTorch's"),
        (None, "is damaged, or no file of PyTorch's"),
        (
            {"epoch": 3, "best": 1.0},
            "gen_state_dict or avg_gen_state_dict, but",
        ),
        ({"gen_state_dict": 3}, "holds no state dict of a generator"),
        ({"dis_state_dict": {}}, "holds no state dict of a generator"),
        ([1, 2], "holds a list, and no state dicts"),
    ],
)
def test_what_is_no_checkpoint_gets_one_sentence(
    content, sentence, tiny_file, tmp_path, capsys
):
    import torch

    file = tmp_path / "F.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is None:
        file.write_bytes(tiny_file.read_bytes()[:-500])
    else:
        torch.save(content, file)
    error = refusal(file, tmp_path, capsys)
    assert sentence in error and len(error.splitlines()) == 1


def test_without_pytorch_one_sentence(tiny_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert convert_file(tiny_file, tmp_path / "run") == 1
    assert capsys.readouterr().err == (
        "error: reading and writing .pth files needs PyTorch: pip install "
        "'transgan-tf[torch]'\n"
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"checkpoint": None}, "--checkpoint must name the authors' .pth file"),
        ({"dataset": None}, "and --dataset what it was trained on"),
        ({"checkpoint": "nowhere.pth"}, "No such file or directory: nowhere"),
        ({"checkpoint": "."}, "Is a directory: ."),
        ({"run_dir": "mine"}, "mine is there already"),
        ({"run_dir": "mine/file/run"}, "mine/file/run cannot be written (Not"),
        ({"preset": "cifar"}, "did you mean 'cifar10'?"),
        ({"preset": "mnist"}, "generator.channels=1, where theirs has 3"),
        ({"set": "generator.latent=3"}, "--set names no field"),
        ({"to_pytorch": "F.pth"}, "leave --dataset, --preset and --set out"),
        (
            {"to_pytorch": "F.pth", "checkpoint": None, "dataset": None},
            "new is not a run",
        ),
    ],
)
def test_mistakes_get_one_sentence(
    flags, sentence, tiny_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("years of work")
    usual = {"checkpoint": tiny_file, "dataset": "cifar10", "run_dir": "new"}
    words = [f"--{k}={v}" for k, v in (usual | flags).items() if v is not None]
    # A file that fits, where it is only the folder that cannot be made.
    words += TINY_FLAGS if "file" in flags.get("run_dir", "") else []
    assert convert.main(words) == 1
    error = capsys.readouterr().err.strip()
    assert sentence in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]
