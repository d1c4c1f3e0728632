"""Draws a run's scores over its images: `python -m transgan_tf.curves`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from transgan_tf import cli
from transgan_tf.checked import UserError
from transgan_tf.checked import require


@dataclass(frozen=True)
class Arguments:
    """Draw the scores of a run over the real images that it has seen.

    python -m transgan_tf.curves --run_dir=runs/mnist --output=curves.png
    """

    run_dir: Path
    """Folder of the run."""
    output: Path = Path("curves.png")
    """File of the picture (.png or .svg)."""
    floor: Path | None = None
    """File with what `evaluate --floor` printed, drawn as a line."""


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    from transgan_tf.checkpoints import load_config
    from transgan_tf.evaluating import evaluations

    suffix = arguments.output.suffix
    known = suffix in (".png", ".svg")
    require(known, "--output", "must name a .png or .svg", str(suffix))
    load_config(arguments.run_dir)
    records = evaluations(arguments.run_dir)
    if not records:
        raise UserError(
            f"{arguments.run_dir} has no scores: train with --set "
            "evaluation.every_images=N, or run python -m transgan_tf.evaluate"
        )
    records = _comparable(records)
    floor = {} if arguments.floor is None else _read_floor(arguments.floor)
    draw(records, floor, arguments.output)
    print(arguments.output)
    return cli.DONE


def draw(records: list[dict], floor: dict, path) -> None:
    """Draws a panel for each score.

    Args:
        records: lines of `metrics.jsonl` that hold evaluations.
        floor: numbers of real images by name, for lines across.
        path: file to write.
    """
    from matplotlib.figure import Figure

    found = (name for r in records for name in r["evaluation"]["metrics"])
    names = [n for n in dict.fromkeys(found) if not n.endswith("_std")]
    figure = Figure(figsize=(4.5 * len(names), 3.2), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        points = [
            (record["images"] / 1000, record["evaluation"]["metrics"][name])
            for record in records
            if name in record["evaluation"]["metrics"]
        ]
        panel.plot(*zip(*points, strict=True), marker="o")
        if name in floor:
            panel.axhline(floor[name], color="grey", linestyle="--")
        if name == "fid":
            # It falls by orders of magnitude.
            panel.set_yscale("log")
        panel.set_xlabel("thousands of real images seen")
        features = records[0]["evaluation"]["protocol"]["features"]
        panel.set_title(f"{name} (features: {Path(features).name})")
        panel.grid(alpha=0.3)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _comparable(records):
    """Returns the records of the newest one's protocol, by images.

    Versions of the code aside: the others' numbers do not compare.
    """

    def protocol(record):
        return record["evaluation"]["protocol"] | {"code": ""}

    newest = protocol(records[-1])
    same = [record for record in records if protocol(record) == newest]
    return sorted(same, key=lambda record: record["images"])


def _read_floor(path):
    try:
        return json.loads(path.read_text())["metrics"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is not what `evaluate --floor` prints: write that to a "
            "file by >"
        ) from None


def main(argv=None) -> int:
    return cli.run(Arguments, act, "python -m transgan_tf.curves", argv)


if __name__ == "__main__":
    sys.exit(main())
