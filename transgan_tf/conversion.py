"""Between the authors' checkpoints and runs of ours.

A run that was converted has `config.json` and one checkpoint, of step 0, of
networks alone: it is sampled, scored and exported as any other, and training
goes on from its weights with optimizers and counters of its own.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from transgan_tf import pth
from transgan_tf.authors import AUGMENTATION_BUFFERS
from transgan_tf.authors import Entry
from transgan_tf.authors import discriminator_entries
from transgan_tf.authors import generator_entries
from transgan_tf.authors import is_celeba_hq
from transgan_tf.authors import relative_position_index
from transgan_tf.checked import UserError
from transgan_tf.checkpoints import NETWORKS_ALONE
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.checkpoints import RunError
from transgan_tf.checkpoints import load_config
from transgan_tf.checkpoints import read_arrays
from transgan_tf.configs import Config

GENERATOR, AVERAGE = "gen_state_dict", "avg_gen_state_dict"
DISCRIMINATOR = "dis_state_dict"
# Our names of the networks, by the authors'.
_PARTS = {
    GENERATOR: "generator",
    AVERAGE: "ema_generator",
    DISCRIMINATOR: "discriminator",
}


class ConversionError(UserError):
    """A checkpoint that does not fit the networks it is to be read into."""


def from_pytorch(file, config: Config, run_dir) -> list[str]:
    """Makes a run of a checkpoint of the authors' code.

    Args:
        file: their `.pth`: a dict with `gen_state_dict`, `avg_gen_state_dict`
            and `dis_state_dict`, or the state dict of a generator alone;
            names may begin with `module.`.
        config: the run's; its networks are those of the file.
        run_dir: a folder that is made.

    Returns:
        Sentences on what is not as in a whole checkpoint.

    Raises:
        PthError: the file cannot be used.
        ConversionError: it is of other networks. Its text names all tensors
            that are missing, unexpected or of another shape.
        RunError: `run_dir` is there already, or cannot be written.
    """
    _check_absent(run_dir)
    # Told before a large file is read.
    entries = _entries(config)
    states = _states(file, pth.read(file))
    arrays = _arrays(file, entries, states)
    notes = _complete(arrays, states)
    source = f"{Path(file).name}, SHA-256 {_sha256(file)}"
    _write_run(run_dir, replace(config, converted_from=source), arrays)
    return notes


def to_pytorch(run_dir, checkpoint: str, file) -> list[str]:
    """Writes a run's networks as a checkpoint of the authors' code.

    Names are those of their networks, without `module.`. A run that was
    converted without a discriminator gives none.

    Args:
        run_dir: the run's folder.
        checkpoint: see `CheckpointFolder.find`.
        file: the `.pth` that is written.

    Returns:
        The state dicts that were written.

    Raises:
        RunError: there is no such run or checkpoint.
        ConfigError: the authors have no such networks.
        PthError: the file cannot be written.
    """
    entries = _entries(load_config(run_dir))
    folder = CheckpointFolder(Path(run_dir, "checkpoints")).find(checkpoint)
    shapes = {
        f"{_PARTS[part]}/{entry.path}": entry.our_shape
        for part in _PARTS
        for entry in entries[part]
        if entry.path is not None
    }
    arrays = read_arrays(folder, shapes)
    states = {
        part: _state_dict(_PARTS[part], entries[part], arrays)
        for part in _PARTS
        if any(name.startswith(f"{_PARTS[part]}/") for name in arrays)
    }
    pth.write(file, states)
    return list(states)


def _entries(config) -> dict[str, tuple[Entry, ...]]:
    generator = generator_entries(config.generator)
    discriminator = discriminator_entries(config.discriminator)
    return {
        GENERATOR: generator,
        AVERAGE: generator,
        DISCRIMINATOR: discriminator,
    }


# === Reading ===


def _states(file, content) -> dict[str, dict]:
    """Returns the file's state dicts by the authors' names of them."""
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ConversionError(f"{file} holds a {kind}, and no state dicts")
    states = {part: content[part] for part in _PARTS if part in content}
    if not states and "l1.weight" in _without_prefix(content):
        # What the authors' test takes for a generator to be scored.
        states = {AVERAGE: content}
    wrong = [p for p, state in states.items() if not isinstance(state, dict)]
    if wrong or not {GENERATOR, AVERAGE} & states.keys():
        found = ", ".join(map(str, list(content)[:10])) or "nothing"
        raise ConversionError(
            f"{file} holds no state dict of a generator, {GENERATOR} or "
            f"{AVERAGE}, but {found}"
        )
    states = {part: _without_prefix(state) for part, state in states.items()}
    if any(is_celeba_hq(state) for state in states.values()):
        raise ConversionError(
            f"{file} is of the authors' CelebA-HQ generator, whose blocks "
            "attend to an embedding of the latent, too: there is no such "
            "network here, and only the CIFAR-10, STL-10 and LSUN Church "
            "checkpoints can be converted"
        )
    return states


def _without_prefix(state):
    return {str(k).removeprefix("module."): v for k, v in state.items()}


def _arrays(file, entries, states) -> dict[str, np.ndarray]:
    """Returns our checkpoint's arrays by name.

    Raises:
        ConversionError: names all tensors that do not fit.
    """
    arrays, problems = {}, []
    for part, state in states.items():
        for problem, names in _compare(entries[part], state).items():
            problems += [f"\n  {part}: {problem} {name}" for name in names]
        if not problems:
            arrays |= {
                f"{_PARTS[part]}/{entry.path}": entry.to_ours(state[entry.name])
                for entry in entries[part]
                if entry.path is not None
            }
    if problems:
        raise ConversionError(
            f"{file} is of other networks; --preset and --set say of which, "
            f"such as --set=generator.latent_dim=512:{''.join(problems)}"
        )
    return arrays


def _compare(entries: Iterable[Entry], state) -> dict[str, list[str]]:
    """Returns the names of the tensors that do not fit, by what is wrong."""
    known = {*AUGMENTATION_BUFFERS, *(entry.name for entry in entries)}
    missing, misshapen, odd = [], [], []
    for entry in entries:
        value = state.get(entry.name)
        if value is None:
            # An older release may be without the buffer, which says nothing.
            if entry.path is not None:
                missing.append(entry.name)
        elif (shape := getattr(value, "shape", None)) != entry.shape:
            shapes = f"{shape} instead of {entry.shape}"
            misshapen.append(f"{entry.name} {shapes}")
        elif not _is_expected(entry, value):
            odd.append(entry.name)
    return {
        "lacks": missing,
        "has unexpected": [name for name in state if name not in known],
        "has misshapen": misshapen,
        "has other values or another type in": odd,
    }


def _is_expected(entry, value):
    if entry.window is not None:
        return np.array_equal(value, relative_position_index(entry.window))
    return value.dtype == np.float32


def _complete(arrays, states) -> list[str]:
    """Lets one generator stand for both; returns what is to be told."""
    notes = []
    for part, other, name in (
        (GENERATOR, AVERAGE, "generator"),
        (AVERAGE, GENERATOR, "moving average"),
    ):
        if part not in states:
            arrays |= _renamed(arrays, _PARTS[other], _PARTS[part])
            notes.append(f"it has no {part}: {other} is the {name}, too")
    if DISCRIMINATOR not in states:
        notes.append(
            f"it has no {DISCRIMINATOR}: the run can be sampled, scored and "
            "exported, but not trained"
        )
    return notes


def _renamed(arrays, old, new):
    """Returns the arrays of one network under another's name."""
    return {
        f"{new}/{name.removeprefix(f'{old}/')}": value
        for name, value in arrays.items()
        if name.startswith(f"{old}/")
    }


def _sha256(file):
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# === Writing ===


def _check_absent(run_dir):
    run_dir = Path(run_dir)
    empty = run_dir.is_dir() and not any(run_dir.iterdir())
    if run_dir.exists() and not empty:
        raise RunError(
            f"{run_dir} is there already: choose another --run_dir, or remove "
            "it"
        )


def _write_run(run_dir, config, arrays):
    """Makes a run's folder, which appears whole or not at all."""
    run_dir = Path(os.path.abspath(run_dir))
    temporary = run_dir.with_name(f".{run_dir.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        folder = CheckpointFolder(temporary / "checkpoints")
        folder.write(0, arrays | {NETWORKS_ALONE: np.True_})
        (temporary / "config.json").write_text(config.to_json())
        temporary.rename(run_dir)
    except (OSError, RunError) as error:
        # What the folder of checkpoints says of it names the temporary one.
        cause = error.__context__ if isinstance(error, RunError) else error
        raise RunError(
            f"{run_dir} cannot be written ({cause.strerror}): make room, give "
            "yourself permission, or choose another --run_dir"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _state_dict(part, entries, arrays):
    """Returns the authors' state dict of one network, in their order."""
    state = {}
    for entry in entries:
        if entry.path is None:
            value = relative_position_index(entry.window)
        else:
            value = entry.to_theirs(arrays[f"{part}/{entry.path}"])
        state[entry.name] = value
    return state
