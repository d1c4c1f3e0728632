"""Trains and scores the paper's ablation: `python -m transgan_tf.ablate`."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from typing import Literal

import tyro

from transgan_tf import ablation
from transgan_tf import cli
from transgan_tf.checked import UserError
from transgan_tf.checked import require_choice
from transgan_tf.configs import Config
from transgan_tf.processes import TOLD_TO_STOP
from transgan_tf.processes import shell_status
from transgan_tf.processes import tied_to_this
from transgan_tf.train import Arguments as Training

Row = Literal[tuple(row for rows in ablation.TABLES.values() for row in rows)]


@dataclass(frozen=True)
class Arguments:
    """Train every row of the paper's ablation with every seed, and compare.

    The embedded digits, in networks of a size for CPUs:

    python -m transgan_tf.ablate --output_dir=ablation

    Your own images, in the networks and by the recipe of a preset:

    python -m transgan_tf.ablate --dataset=cats --preset=celeba_64

    The transformer against convolutions, each also with augmentation:

    python -m transgan_tf.ablate --table=2 --output_dir=architectures

    Each row and seed is a run of its own in the output folder, which the same
    command again goes on with, or passes over if it is done. Then the folder
    has a table (ablation.md), the numbers (ablation.json) and a plot
    (ablation.png).
    """

    dataset: str = "mnist"
    """Name of a folder in data_dir, path of a folder of images, or mnist."""
    data_dir: Path = Path("data")
    """Folder of prepared datasets."""
    output_dir: Path = Path("ablation")
    """Where runs, table and plot go."""
    table: Literal[2, 3] = 3
    """Of the paper: 2 compares architectures, 3 parts of the transformer."""
    preset: str | None = None
    """Sizes and recipe; by default small networks of the digits."""
    rows: tuple[Row, ...] | None = None
    """Which rows of the table; all by default."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds of each row."""
    steps: int | None = None
    """Generator updates of each run."""
    assignments: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(name="set", metavar="FIELD=VALUE"),
    ] = ()
    """Change a field of all rows, such as training.batch_size=32."""
    dry_run: bool = False
    """Print what would be run, and stop."""

    def configs(self) -> dict[str, Config]:
        """Returns the configuration of each row."""
        known = tuple(ablation.TABLES[self.table])
        rows = known if self.rows is None else self.rows
        for row in rows:
            require_choice(f"--rows of table {self.table}", row, known)
        return {row: ablation.row_config(self._base(row), row) for row in rows}

    def _base(self, row):
        """Returns what a row starts from, with the flags' changes."""
        changes = list(self.assignments)
        if self.steps is not None:
            changes.append(f"training.steps={self.steps}")
        base = ablation.base_config(row, self.preset).override(changes)
        if not base.evaluation.every_images:
            last = base.training.steps * base.training.images_per_step
            base = base.override([f"evaluation.every_images={last}"])
        return base

    def cells(self, configs: dict[str, Config]) -> list["Cell"]:
        """Returns the runs, all rows with one seed before the next seed.

        So a part of them compares, too.
        """
        cells = [
            Cell(
                row,
                seed,
                config.override([f"training.seed={seed}"]),
                Training(
                    dataset=self.dataset,
                    data_dir=self.data_dir,
                    run_dir=self.output_dir / f"{row}-{seed}",
                    config_file=self.output_dir / f"{row}.json",
                    seed=seed,
                ),
            )
            for seed in dict.fromkeys(self.seeds)
            for row, config in configs.items()
        ]
        if not cells:
            raise UserError("--rows and --seeds must each name at least one")
        return cells


@dataclass(frozen=True)
class Cell:
    """A run of the ablation.

    Attributes:
        row: its key in one of the tables.
        seed: of the training.
        config: everything else that the run depends on, but for the images.
        training: command line that trains it.
    """

    row: str
    seed: int
    config: Config
    training: Training


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    configs = arguments.configs()
    cells = arguments.cells(configs)
    if arguments.dry_run:
        print(ablation.table(configs, []))
        for cell in cells:
            print(cell.training.run_dir)
        return cli.DONE
    cli.import_tensorflow_quietly()
    from transgan_tf.data import find_folder

    # Each run would say it again.
    find_folder(arguments.dataset, arguments.data_dir)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    for row, config in configs.items():
        path = arguments.output_dir / f"{row}.json"
        path.write_text(config.to_json())
    status = train_all(cells)
    results = {str(c.training.run_dir): result_of(c) for c in cells}
    write(arguments.output_dir, configs, list(filter(None, results.values())))
    missing = [run_dir for run_dir, result in results.items() if not result]
    if missing and not status:
        raise UserError(
            f"these runs have no scores, as told above: {', '.join(missing)}"
        )
    return status


def train_all(cells: list[Cell]) -> int:
    """Trains what is not done, whatever becomes of each.

    Returns:
        0, or 130 or 143 after a signal.
    """
    for cell in cells:
        if result_of(cell) is not None:
            continue
        title = ablation.title(cell.row, cell.config)
        print(f"{cell.training.run_dir}: {title}", flush=True)
        status = train(cell.training)
        if status in TOLD_TO_STOP:
            return status
    return cli.DONE


def command(run: Training) -> list[str]:
    """Returns the words that train a run."""
    names = ("dataset", "data_dir", "run_dir", "config_file", "seed")
    flags = [f"--{name}={getattr(run, name)}" for name in names]
    return [sys.executable, "-m", "transgan_tf.train", *flags]


def train(run: Training) -> int:
    """Trains a run in a process of its own; returns its `shell_status`.

    Ctrl-C reaches both processes, and SIGTERM is passed on: the run saves, and
    this one waits for it.
    """
    process = subprocess.Popen(tied_to_this(command(run)))
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        return shell_status(process.wait())
    except KeyboardInterrupt:
        process.wait()
        return cli.INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def result_of(cell: Cell) -> dict | None:
    """Returns a finished run's scores, or None if there is something to do.

    That is also so if it is of another configuration or dataset: training
    says what differs.
    """
    from transgan_tf.checkpoints import load_config
    from transgan_tf.evaluating import evaluations

    run_dir, steps = cell.training.run_dir, cell.config.training.steps
    if not Path(run_dir, "config.json").is_file():
        return None
    config = load_config(run_dir)
    same_data = config.dataset.startswith(f"{cell.training.name()}, ")
    if not same_data or replace(config, dataset="") != cell.config:
        return None
    for record in evaluations(run_dir):
        if record["step"] == steps:
            scores = record["evaluation"]
            return {"row": cell.row, "seed": cell.seed, **scores}
    return None


def write(output_dir, configs: dict[str, Config], results: list[dict]) -> None:
    """Writes table, numbers and plot, and prints the table."""
    table = ablation.table(configs, results)
    print(table, end="")
    Path(output_dir, "ablation.md").write_text(table)
    text = json.dumps(results, indent=2) + "\n"
    Path(output_dir, "ablation.json").write_text(text)
    if results:
        ablation.draw(configs, results, Path(output_dir, "ablation.png"))


def main(argv=None) -> int:
    name = "python -m transgan_tf.ablate"
    return cli.run(Arguments, act, name, argv, needs_tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
