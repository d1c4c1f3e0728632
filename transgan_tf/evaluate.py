"""Scores a trained generator: `python -m transgan_tf.evaluate`."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transgan_tf import cli
from transgan_tf.checked import UserError


@dataclass(frozen=True)
class Arguments:
    """Score a run's averaged generator against the images it was trained on.

    Prints one line of JSON: the numbers, which of them had too few samples,
    and the protocol, which names everything that they depend on. The line is
    added to the run's metrics.jsonl and TensorBoard, too.

    The demo's run, with nothing to download:

    python -m transgan_tf.evaluate --run_dir=runs/mnist

    All scores of TF-GAN's Inception, which is downloaded once:

    python -m transgan_tf.evaluate --run_dir=runs/mnist --features=inception
    """

    run_dir: Path
    """Folder of the run."""
    metrics: str = "fid,is,kid,precision_recall,density_coverage"
    """Which scores, separated by commas."""
    num_images: int | None = None
    """Samples to score; by default what the run's configuration says."""
    features: str | None = None
    """inception, classifier, or the folder of a SavedModel; by default what the
    run's configuration says."""
    inception: Path | None = None
    """Folder of Inception as a SavedModel, instead of a download."""
    seed: int | None = None
    """Seed of the first sample."""
    checkpoint: str = "latest"
    """Which checkpoint of the run."""
    dataset: str | None = None
    """Images to compare with; by default those of the run."""
    data_dir: Path = Path("data")
    """Folder of prepared datasets."""
    reference: Path | None = None
    """Compare with an .npz file of mu and sigma instead of images."""
    write_reference: Path | None = None
    """Write the images' mu and sigma to this .npz file."""
    strategy: Literal["auto", "mirrored", "none"] = "auto"
    """How sampling is spread over devices; auto takes all GPUs."""
    floor: bool = False
    """Score one half of the real images against the other instead."""

    def settings(self, config):
        """Returns the run's `EvaluationConfig` with the flags' changes."""
        changes = {"metrics": self.metrics}
        for name in ("num_images", "seed"):
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        if self.features or self.inception:
            changes["features"] = self.features or "inception"
        # Nothing waits for this command: it may take its time.
        return dataclasses.replace(
            config.evaluation,
            every_images=0,
            keep_best=False,
            time_limit=0,
            **changes,
        )

    def check(self) -> None:
        """Raises `UserError` for flags that do not go together."""
        if self.inception and self.features not in (None, "inception"):
            raise UserError(
                "--inception goes with --features=inception alone: leave one "
                "of the two out"
            )
        if self.reference and (self.write_reference or self.dataset):
            raise UserError(
                "--reference takes the place of images: leave --dataset and "
                "--write_reference out"
            )
        others = ("num_images", "seed", "reference", "write_reference")
        given = [name for name in others if getattr(self, name) is not None]
        if self.floor and given:
            raise UserError(
                "--floor compares halves of all real images: leave "
                f"--{given[0]} out"
            )


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    from transgan_tf.checkpoints import find_checkpoint
    from transgan_tf.checkpoints import load_config
    from transgan_tf.metrics.features import load_features
    from transgan_tf.training import make_exact
    from transgan_tf.training import make_strategy

    arguments.check()
    cli.show_log()
    config = load_config(arguments.run_dir)
    settings = arguments.settings(config)
    if not arguments.floor:
        # Told before a network is loaded, trained or downloaded.
        find_checkpoint(arguments.run_dir, arguments.checkpoint)
    make_exact(seed=0)
    strategy = make_strategy(arguments.strategy)
    network = load_features(
        settings.features,
        strategy,
        download=True,
        inception=arguments.inception,
    )
    score = _score_halves if arguments.floor else _score_run
    score(arguments, config, settings, network, strategy)
    return cli.DONE


def _score_run(arguments, config, settings, network, strategy):
    """Scores a checkpoint, prints that and adds it to the run."""
    from transgan_tf.checkpoints import find_checkpoint
    from transgan_tf.checkpoints import load_generator
    from transgan_tf.evaluating import add_to_run
    from transgan_tf.evaluation import Evaluator

    # By its step's name, since training may save another meanwhile.
    name, step = find_checkpoint(arguments.run_dir, arguments.checkpoint)
    with strategy.scope():
        generator = load_generator(arguments.run_dir, name)
    reference = _reference(arguments, config, network, strategy)
    evaluator = Evaluator(network, reference, settings, strategy)
    result = evaluator.score(generator)
    images = step * config.training.images_per_step
    print(json.dumps({"step": step, "images": images, "evaluation": result}))
    add_to_run(arguments.run_dir, step, images, result)


def _score_halves(arguments, config, settings, network, strategy):
    """Prints the scores of real images by other real images."""
    from transgan_tf.evaluation import score_halves

    store = _store(arguments, config)
    result = score_halves(store, settings.metric_names, network, strategy)
    print(json.dumps(result))


def _reference(arguments, config, network, strategy):
    """Returns what to compare with, and writes it if asked to."""
    from transgan_tf.evaluation import reference_of
    from transgan_tf.metrics.reference import read_reference
    from transgan_tf.metrics.reference import write_reference

    if arguments.reference is not None:
        return read_reference(
            arguments.reference, network.width, network.fingerprint
        )
    store = _store(arguments, config)
    reference = reference_of(store, network, strategy)
    if arguments.write_reference is not None:
        write_reference(
            arguments.write_reference, reference, network.fingerprint
        )
    return reference


def _store(arguments, config):
    """Opens the images of the run, or those that the user names."""
    from transgan_tf.data import load_dataset
    from transgan_tf.stores import as_store
    from transgan_tf.stores import check_size

    name, _, fingerprint = config.dataset.partition(", ")
    if not (arguments.dataset or name):
        raise UserError(
            f"{arguments.run_dir} does not say of which images it is: name "
            "them by --dataset, or their statistics by --reference"
        )
    images = load_dataset(arguments.dataset or name, arguments.data_dir, config)
    store = as_store(images)
    check_size(store, config)
    # A run that was converted knows the name alone.
    other = fingerprint and store.fingerprint != fingerprint
    if arguments.dataset is None and other:
        raise UserError(
            f"the images of {name} are not those that the run was trained on "
            f"({store.fingerprint} instead of {fingerprint}): give "
            f"--dataset={name} to compare with them all the same"
        )
    return store


def main(argv=None) -> int:
    return cli.run(Arguments, act, "python -m transgan_tf.evaluate", argv)


if __name__ == "__main__":
    sys.exit(main())
