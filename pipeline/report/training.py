"""A training run's curves: losses, and scores over images seen."""

import json
import math
from pathlib import Path

from pipeline.report import charts
from pipeline.report import formats
from pipeline.report.gather import Story

LOSSES = {
    "discriminator_loss": "discriminator",
    "generator_loss": "generator",
}
SEEN = "real images seen"


def training(story: Story) -> dict | None:
    """Returns what the template `training.html` shows."""
    folder = _run_folder(story.folder("Trainer", "model_run"))
    if folder is None:
        return None
    records = read_records(folder / "metrics.jsonl")
    measured, skipped = comparable(records)
    samples = sorted(folder.glob("samples/step-*.png"))
    return {
        "facts": _facts(records),
        "losses": losses(records),
        "fid": fid_curve(measured),
        "skipped": skipped,
        "samples": [
            {"step": formats.number(int(path.stem[5:])), "picture": picture}
            for path in dict.fromkeys([*samples[:1], *samples[-1:]])
            if (picture := formats.picture(path))
        ],
    }


def read_records(path: Path) -> list[dict]:
    """Reads `metrics.jsonl`; lines that a kill has cut short are left out."""
    records = []
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"step", "images"} <= record.keys():
            records.append(record)
    return sorted(records, key=lambda record: record["step"])


def comparable(records: list[dict]) -> tuple[list[dict], int]:
    """Keeps evaluations made as the newest was; the code's version aside.

    Returns:
        The records, and how many others were left out.
    """
    scored = [record for record in records if "evaluation" in record]
    same = [r for r in scored if _protocol(r) == _protocol(scored[-1])]
    return same, len(scored) - len(same)


def _protocol(record):
    return record["evaluation"].get("protocol", {}) | {"code": ""}


def losses(records: list[dict]) -> dict | None:
    """Returns the chart of both losses."""
    series, group = [], 1
    for key, name in LOSSES.items():
        points, group = charts.thin(
            (r["images"], r[key]) for r in records if key in r
        )
        series.append(charts.Series(name, tuple(points)))
    chart = charts.line_chart("Losses", series, SEEN)
    return chart and chart | {"group": group}


def fid_curve(records: list[dict]) -> dict | None:
    """Returns the chart of FID with the best one and how it was measured."""
    points = [
        (record["images"], record["evaluation"]["metrics"]["fid"])
        for record in records
        if "fid" in record["evaluation"].get("metrics", {})
    ]
    usable = [p for p in points if math.isfinite(p[1]) and p[1] > 0]
    if not usable:
        return None
    best = min(usable, key=lambda point: point[1])
    series = [charts.Series("FID", tuple(points))]
    chart = charts.line_chart("FID", series, SEEN, log=True, mark=best)
    return chart | {
        "best": formats.number(best[1]),
        "best_images": formats.number(best[0]),
        "protocol": records[-1]["evaluation"].get("protocol", {}),
    }


def _facts(records):
    steps = [record for record in records if "images_per_second" in record]
    if not steps:
        return {}
    return {
        "Steps": formats.number(records[-1]["step"]),
        "Real images seen": formats.number(records[-1]["images"]),
        "Images per second, newest": formats.number(
            steps[-1]["images_per_second"]
        ),
    }


def _run_folder(folder):
    """Returns the one folder in it that the dataset gave its name."""
    if folder is None:
        return None
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    return inside[0] if inside else None
