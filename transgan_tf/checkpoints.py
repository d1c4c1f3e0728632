"""Checkpoints: a folder of archives, and the generator that a run trained.

A checkpoint is one `.npz` of every array that training continues from, in a
folder `step-000001000`. It is written beside its name and renamed, so that a
name stands for a whole checkpoint; the file `latest` names the newest, and
`best` the one of the lowest FID, if the run keeps it. A checkpoint that was
converted has networks alone: training goes on from them with fresh optimizers.
"""

import errno
import logging
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np

from transgan_tf.checked import ConfigError
from transgan_tf.checked import UserError
from transgan_tf.configs import Config

ARRAYS = "state.npz"
# Files that name a checkpoint.
LATEST, BEST = "latest", "best"
# An array that tells a checkpoint of networks alone, and what such a one has
# beside it: a discriminator, too, if the file that was converted had one.
NETWORKS_ALONE = "networks_alone"
_GENERATORS, _DISCRIMINATOR = ("generator/", "ema_generator/"), "discriminator/"
_STEP = r"step-\d+"
# Counters that checkpoints of the first version do not have.
_LATER = ("skipped_updates", "bad_row")
_log = logging.getLogger(__name__)


class RunError(UserError):
    """A run's folder that cannot be used."""


class DamagedError(RunError):
    """A checkpoint that cannot be read."""


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: made when the first checkpoint is saved.
        keep: number of checkpoints that are kept.

    Attributes:
        writable: whether this process is the one that writes here.
    """

    writable = True

    def __init__(self, folder, keep: int = 3):
        self.folder = Path(folder)
        self.keep = keep

    def latest(self) -> Path | None:
        """Returns the newest checkpoint's folder, or None before the first.

        Where the file `latest` was lost, or what it names, that is the one of
        the highest step.
        """
        named = _named(self.folder / LATEST)
        if named is None or not named.is_dir():
            named = max(self.folder.glob("step-*"), default=None)
        return named

    def find(self, name: str) -> Path:
        """Returns a checkpoint's folder.

        Args:
            name: `"latest"`, another file here that names a checkpoint, or the
                name of its folder.

        Raises:
            RunError: there is no such checkpoint.
        """
        path = self.folder / name
        if name == LATEST:
            found = self.latest()
        elif re.fullmatch(_STEP, name) and path.is_dir():
            found = path
        else:
            found = _named(path) if path.parent == self.folder else None
            if found is not None and not found.is_dir():
                raise RunError(f"{path} names {found.name}, which is not there")
        if found is None:
            names = sorted(path.name for path in self.folder.glob("step-*"))
            raise RunError(
                f"{self.folder} has no checkpoint {name!r}: it has "
                f"{', '.join(names) or 'none until training saves one'}"
            )
        return found

    def save(self, gan) -> Path:
        """Writes the state of a `TransGAN`; see `write`."""
        return self.write(int(gan.step.numpy()), snapshot(gan))

    def write(self, step: int, arrays: dict) -> Path:
        """Writes a checkpoint; returns its folder.

        Args:
            step: that it is of.
            arrays: what `snapshot` returned.

        Raises:
            RunError: it cannot be written; those before it are as they were.
        """
        name = step_name(step)
        target, temporary = self.folder / name, self.folder / f".{name}.tmp"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write_arrays(temporary / ARRAYS, arrays)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
            _write_name(self.folder / LATEST, name)
        except OSError as error:
            # Room for whoever needs it next.
            shutil.rmtree(temporary, ignore_errors=True)
            raise RunError(
                f"the checkpoint {target} cannot be written "
                f"({error.strerror}): the one before is kept; make room or "
                "give permission, and start the same command again"
            ) from None
        self._prune(target)
        return target

    def _prune(self, newest):
        """Removes old checkpoints, and what an earlier attempt left."""
        steps = sorted(self.folder.glob("step-*"))
        # Newer ones are of a course that was given up for an older one.
        abandoned = [path for path in steps if path > newest]
        old = [path for path in steps if path <= newest][: -self.keep]
        unfinished = self.folder.glob(".step-*.tmp")
        best = self.folder / BEST
        best = best.read_text().strip() if best.is_file() else None
        for path in (*abandoned, *old, *unfinished):
            if path.name != best:
                shutil.rmtree(path, onerror=_tell_what_stays)

    def name_newest(self, name: str) -> None:
        """Lets a file, such as `best`, name the newest checkpoint, too."""
        _write_name(self.folder / name, self.latest().name)

    def restore(self, gan) -> bool:
        """Loads the newest checkpoint, if any; tells whether there was one.

        In place of a damaged one it takes the newest before it, and says so.

        Raises:
            RunError: the checkpoints are all damaged, or of other networks.
        """
        newest = self.latest()
        if newest is None:
            return False
        older = [path for path in self.folder.glob("step-*") if path < newest]
        for checkpoint in sorted([newest, *older], reverse=True):
            try:
                load_arrays(checkpoint, state(gan))
            except DamagedError as error:
                _log.warning("%s; training looks for it", error)
                continue
            if checkpoint != newest:
                _write_name(self.folder / LATEST, checkpoint.name)
            return True
        raise RunError(
            f"every checkpoint in {self.folder} is damaged: remove the folder "
            "to start from the beginning, or choose another --run_dir"
        )


def _tell_what_stays(function, path, error):
    """Logs what could not be removed: no reason to stop training."""
    _log.warning("%s cannot be removed (%s)", path, error[1])


def _write_arrays(path: Path, arrays: dict) -> None:
    """Writes arrays by name, down to the disk."""
    with open(path, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    # The name in the folder, too: a crash of the machine must not leave a
    # renamed folder without it.
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def snapshot(gan) -> dict:
    """Returns the present values of `state`, which training may go on from."""
    return {name: variable.numpy() for name, variable in state(gan).items()}


def state(gan) -> dict:
    """Returns every variable that training continues from, by name.

    The names do not depend on how many models the process has made before.
    """
    counters = ("step", "skipped_updates", "bad_row")
    variables = {name: getattr(gan, name) for name in counters}
    for part in ("generator", "discriminator", "ema_generator"):
        variables |= network_state(part, getattr(gan, part))
    for part in ("generator_optimizer", "discriminator_optimizer"):
        numbered = enumerate(getattr(gan, part).variables)
        variables |= {f"{part}/{n:05d}": v for n, v in numbered}
    for name, tracker in gan.trackers.items():
        numbered = enumerate(tracker.variables)
        variables |= {f"trackers/{name}/{n}": v for n, v in numbered}
    for part, loss_scale in gan.loss_scales.items():
        named = loss_scale.variables().items()
        variables |= {f"loss_scales/{part}/{name}": v for name, v in named}
    return variables


def network_state(part: str, network) -> dict:
    """Returns a network's variables by `part` and path within the network."""
    return {
        f"{part}/{variable.path.partition('/')[2]}": variable
        for variable in network.variables
    }


def load_arrays(checkpoint: Path, variables: dict) -> None:
    """Assigns a checkpoint's arrays to variables of the same names.

    Variables that a checkpoint of networks alone does not have stay as they
    are.

    Raises:
        DamagedError: the file is.
        RunError: an array is missing or misshapen.
    """
    shapes = {name: tuple(v.shape) for name, v in variables.items()}
    arrays = read_arrays(checkpoint, shapes)
    if any(n.startswith(_DISCRIMINATOR) for n in shapes.keys() - arrays.keys()):
        raise RunError(
            f"{checkpoint} was converted from a file without a discriminator: "
            "it can be sampled, scored and exported, but not trained"
        )
    for name, array in arrays.items():
        variables[name].assign(array)


def read_arrays(checkpoint: Path, shapes: dict) -> dict:
    """Returns a checkpoint's arrays by name.

    Args:
        checkpoint: its folder.
        shapes: of the arrays to read, by name. Of networks alone only those of
            the networks that it has are read.

    Raises:
        DamagedError: the file is.
        RunError: an array is missing or misshapen.
    """
    try:
        return _read_arrays(checkpoint / ARRAYS, shapes)
    except _OtherNetworks as error:
        raise RunError(f"{checkpoint} is of other networks: {error}") from None
    except OSError as error:
        # An archive's wrong numbers are places that cannot be sought.
        if error.errno in (errno.EINVAL, errno.ENOENT):
            raise _damaged(checkpoint, error) from None
        # Which may pass, while a checkpoint that is passed over is lost.
        raise RunError(
            f"{checkpoint} cannot be read ({error.strerror}): give yourself "
            "permission, or see to the disk"
        ) from None
    except MemoryError:
        # That says nothing about the file.
        raise
    except Exception as error:
        # Half a dozen kinds, of the archive and of the arrays in it.
        raise _damaged(checkpoint, error) from None


class _OtherNetworks(Exception):
    """A whole archive without an array, or with one of another shape."""


def _damaged(checkpoint, error):
    return DamagedError(
        f"{checkpoint} is damaged ({error}): an older one beside it may be "
        "whole"
    )


def _read_arrays(path, shapes):
    """Returns arrays by name; each has a checksum, which reading compares.

    Raises:
        _OtherNetworks: they are not of these names and shapes.
        Exception: of any kind, if the archive is damaged.
    """
    # NumPy would leave a damaged file open.
    with open(path, "rb") as file:
        archive = np.load(file)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is no archive")
        if NETWORKS_ALONE in archive.files:
            parts = _GENERATORS
            if any(name.startswith(_DISCRIMINATOR) for name in archive.files):
                parts = (*parts, _DISCRIMINATOR)
            shapes = {n: s for n, s in shapes.items() if n.startswith(parts)}
        arrays = dict.fromkeys(_LATER, np.int64(0))
        arrays |= {n: archive[n] for n in shapes if n in archive.files}
        other = [
            f"{name} has shape {arrays[name].shape}, not {shape}"
            if name in arrays
            else f"it has no {name}"
            for name, shape in shapes.items()
            if name not in arrays or arrays[name].shape != shape
        ]
        # A name or a shape that is damaged looks like another's.
        odd = other or not shapes.keys() <= set(archive.files)
        if odd and (damaged := archive.zip.testzip()):
            raise zipfile.BadZipFile(f"{damaged} is not as it was written")
    if other:
        raise _OtherNetworks(other[0])
    return {name: arrays[name] for name in shapes}


def load_generator(run_dir, checkpoint: str = LATEST):
    """Returns the averaged generator of a run.

    Args:
        run_dir: the run's folder, with `config.json` and `checkpoints/`.
        checkpoint: see `CheckpointFolder.find`.

    Returns:
        `transgan_tf.generator.Generator`, or the `ResNetGenerator` of a run of
        that architecture.

    Raises:
        RunError: there is no such run or checkpoint.
    """
    from transgan_tf.networks import make_generator

    config = load_config(run_dir)
    folder = CheckpointFolder(Path(run_dir, "checkpoints")).find(checkpoint)
    generator = make_generator(config.generator, name="ema_generator")
    generator.build((None, config.generator.latent_dim))
    load_arrays(folder, network_state("ema_generator", generator))
    return generator


def find_checkpoint(run_dir, checkpoint: str = LATEST) -> tuple[str, int]:
    """Returns the name and the step of a run's checkpoint.

    Raises:
        RunError: there is no such run or checkpoint.
    """
    load_config(run_dir)
    folder = CheckpointFolder(Path(run_dir, "checkpoints")).find(checkpoint)
    return folder.name, int(folder.name.removeprefix("step-"))


def load_config(run_dir) -> Config:
    """Reads the configuration that a run was started with.

    Raises:
        RunError: `run_dir` is not a run's folder, or its configuration
            cannot be read.
    """
    path = Path(run_dir, "config.json")
    if not path.is_file():
        raise RunError(
            f"{run_dir} is not a run, since it has no config.json: train one "
            f"with python -m transgan_tf.train --run_dir={run_dir}"
        )
    try:
        return Config.from_json(path.read_text())
    except (ConfigError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be used: {error}") from None


def step_name(step: int) -> str:
    """Returns the name of a step's checkpoint."""
    return f"step-{step:09d}"


def _named(path):
    """Returns the folder that a file names, or None if it names none."""
    if not path.is_file():
        return None
    name = path.read_text(errors="replace").strip()
    # A power cut can leave the file empty.
    if not re.fullmatch(_STEP, name):
        return None
    return path.parent / name


def _write_name(path, name):
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w") as file:
        file.write(name + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
