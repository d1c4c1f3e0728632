"""Makes a version that a server loads: `python -m serving.export`."""

import contextlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from serving import versions
from transgan_tf import cli
from transgan_tf.checked import require


@dataclass(frozen=True)
class Arguments:
    """Export a run's averaged generator as the next version of a model.

    The version is checked before it gets its number, and appears whole:

    python -m serving.export --run_dir=runs/mnist --model_dir=models/transgan

    Serve the version before the newest one again:

    python -m serving.export --model_dir=models/transgan --rollback
    """

    model_dir: Path
    """Folder of the model, which holds its versions; made if missing."""
    run_dir: Path | None = None
    """Folder of the run."""
    checkpoint: str = "latest"
    """Which checkpoint of the run: latest, best, or step-..."""
    keep: int | None = None
    """Number of versions to keep, the new one among them; all by default."""
    data_licence: str | None = None
    """Licence of the training images, for the model card."""
    rollback: bool = False
    """Publish the version before the newest one again, as the next number."""

    def check(self) -> None:
        """Raises `ConfigError` for values that cannot be used."""
        if self.keep is not None:
            rule = "must be at least 1"
            require(self.keep >= 1, "--keep", rule, self.keep)
        if self.rollback:
            rule = "does not go with --rollback"
            none = self.run_dir is None
            require(none, "--run_dir", rule, str(self.run_dir))
        else:
            rule = "must name a run, unless --rollback is given"
            require(self.run_dir is not None, "--run_dir", rule, self.run_dir)


def export(
    run_dir,
    model_dir,
    checkpoint: str = "latest",
    keep: int | None = None,
    data_licence: str | None = None,
) -> Path:
    """Exports a run's averaged generator, without attention noise.

    Args:
        run_dir: the run's folder.
        model_dir: the model's folder; its name is the model's.
        checkpoint: see `transgan_tf.checkpoints.CheckpointFolder.find`.
        keep: number of versions to keep afterwards; None for all.
        data_licence: see `serving.card.make_card`.

    Returns:
        The new version's folder.

    Raises:
        RunError: there is no such run or checkpoint.
        VersionError: `model_dir` cannot be used or written.
        CheckError: the version does not answer as the model does. Then, as
            after any other error, nothing is left of it.
    """
    name = Path(model_dir).resolve().name
    generator, card = load_run(run_dir, checkpoint, name, data_licence)
    with versions.staging(model_dir) as folder:
        with _writing(model_dir):
            write_version(folder, generator, card)
            version = _publish(folder)
        _prune(version, keep)
        return version


def rollback(model_dir, keep: int | None = None) -> Path:
    """Publishes the version before the newest one again.

    As a copy, under the next number: servers take the highest number, change
    over without a gap, and never find other content under a number that they
    have loaded. The version that is left stays, to be looked at. Going back
    again goes back further.

    Args:
        model_dir: the model's folder.
        keep: number of versions to keep afterwards; None for all.

    Returns:
        The new version's folder.

    Raises:
        VersionError: there is no version to go back to, or `model_dir` cannot
            be written.
        CheckError: the earlier version does not answer any more.
    """
    from serving.check import check_answers

    earlier = versions.earlier_version(model_dir)
    with versions.staging(model_dir) as folder:
        with _writing(model_dir):
            versions.copy_version(earlier, folder)
            check_answers(folder)
            version = _publish(folder)
        _prune(version, keep)
        return version


def load_run(
    run_dir, checkpoint: str, name: str, data_licence: str | None = None
) -> tuple:
    """Returns a run's averaged generator, and the card of a version of it.

    Args:
        run_dir: the run's folder.
        checkpoint: see `transgan_tf.checkpoints.CheckpointFolder.find`.
        name: of the model.
        data_licence: see `serving.card.make_card`.

    Raises:
        RunError: there is no such run or checkpoint.
    """
    from serving.card import make_card
    from transgan_tf.checkpoints import find_checkpoint
    from transgan_tf.checkpoints import load_generator

    # Training may meanwhile let `latest` name another.
    checkpoint, step = find_checkpoint(run_dir, checkpoint)
    generator = load_generator(run_dir, checkpoint)
    card = make_card(run_dir, checkpoint, step, generator, name, data_licence)
    return generator, card


def write_version(folder, generator, card: dict) -> None:
    """Writes a version into an empty folder, and checks it.

    Args:
        folder: where no server looks, such as one of `versions.staging`.
        generator: a built `Generator`.
        card: of `serving.card.make_card`.

    Raises:
        CheckError: the version does not answer as the generator does.
    """
    from serving.check import check_version
    from serving.warmup import write_requests

    write_saved_model(folder, generator)
    write_requests(folder, card["name"], generator.config)
    check_version(folder, generator)
    versions.write_card(folder, card)


def write_saved_model(folder, generator) -> None:
    """Writes a SavedModel with the signatures of a built `Generator`."""
    import keras

    from serving.signatures import make_signatures

    # It finds the weights that the signatures use; by `track` it would write
    # each of them twice, and a server would hold them twice.
    archive = keras.export.ExportArchive()
    for key, function in make_signatures(generator).items():
        archive.add_endpoint(key, function)
    archive.write_out(str(folder), verbose=False)


def _publish(folder):
    try:
        return versions.publish(folder)
    except OSError as error:
        if folder.exists():
            raise
        # It has its number, and servers load it.
        raise versions.VersionError(
            f"a version was published in {folder.parent}, but may be lost if "
            f"the machine fails now ({error.strerror}): look at its disk"
        ) from None


def _prune(version, keep):
    if keep is None:
        return
    try:
        versions.prune(version, keep)
    except OSError as error:
        raise versions.VersionError(
            f"{version} was published, but older versions could not be removed "
            f"({error.strerror}): remove them yourself"
        ) from None


@contextlib.contextmanager
def _writing(model_dir):
    """Turns what goes wrong while writing into one sentence."""
    import tensorflow as tf

    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = str(error).partition("\n")[0]
        raise versions.VersionError(
            f"no version was published in {model_dir} ({reason}): make room, "
            "or give yourself permission"
        ) from None


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    arguments.check()
    # Notes on what the loader of TensorFlow Serving will be called one day.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if arguments.rollback:
        version = rollback(arguments.model_dir, arguments.keep)
    else:
        version = export(
            arguments.run_dir,
            arguments.model_dir,
            arguments.checkpoint,
            arguments.keep,
            arguments.data_licence,
        )
    print(version)
    return cli.DONE


def main(argv=None) -> int:
    return cli.run(Arguments, act, "python -m serving.export", argv)


if __name__ == "__main__":
    sys.exit(main())
