"""What each section of a report shows, as plain data for its template."""

from pathlib import Path

from pipeline.report import charts
from pipeline.report import formats
from pipeline.report.gather import Step
from pipeline.report.gather import Story
from pipeline.report.gather import tail

COMPONENTS = (
    "ExampleGen",
    "StatisticsGen",
    "ExampleValidator",
    "Trainer",
    "Evaluator",
    "InfraValidator",
    "Pusher",
)
MOST_CLASSES = 30


def overview(story: Story) -> dict:
    """Returns the run itself and its outcome."""
    run = story.run
    return {
        "id": run.id,
        "dataset": run.dataset,
        "status": run.status,
        "facts": {
            "Started": formats.moment(run.started),
            "Finished": formats.moment(run.finished),
            "Took": formats.duration(
                formats.seconds_between(run.started, run.finished)
            ),
            "Host": run.host,
            "Process": run.pid,
        },
        "options": formats.flatten(run.options),
    }


def failure(story: Story, page: Path) -> dict | None:
    """Returns where and why a run ended before its end."""
    step = story.failed()
    if step is None:
        return None
    log = story.log(step)
    return {
        "component": step.execution.component,
        "status": _status(step),
        "error": step.execution.error,
        "log": _log(log, story.root, page),
        "tail": tail(log),
    }


def _status(step: Step):
    """Returns a status as of now: of what was killed, nobody noted the end."""
    status = step.execution.status
    return "interrupted" if status == "running" else status


def components(story: Story, page: Path) -> list[dict]:
    """Returns a row for each component, with the length of its bar."""
    rows = [_row(step, story, page) for step in story.steps.values()]
    longest = max((row["seconds"] or 0 for row in rows), default=0)
    for row in rows:
        row["share"] = _share(row["seconds"] or 0, longest)
    rest = [name for name in COMPONENTS if name not in story.steps]
    word = "waits" if story.run.status == "running" else "did not run"
    return rows + [{"name": name, "status": word} for name in rest]


def _row(step: Step, story: Story, page: Path):
    execution = step.execution
    seconds = formats.seconds_between(execution.started, execution.finished)
    return {
        "name": execution.component,
        "status": "cached" if step.cached else execution.status,
        "execution": execution.id,
        "seconds": seconds,
        "took": formats.duration(seconds),
        "started": formats.moment(execution.started),
        "log": _log(story.log(step), story.root, page),
    }


def _log(path: Path, root: Path, page: Path):
    if not path.is_file():
        return None
    inside = path.relative_to(root)
    depth = len(page.parent.relative_to(root).parts)
    return {
        "name": inside.as_posix(),
        "href": formats.link(Path(*[".."] * depth, inside)),
    }


def data(story: Story) -> dict | None:
    """Returns what the images are like."""
    where = "StatisticsGen", "statistics"
    statistics = story.json(*where, "statistics.json")
    if not statistics:
        return None
    splits = statistics.get("splits", {})
    return {
        "image_size": statistics.get("image_size"),
        "channels": statistics.get("channels"),
        "splits": [_split(name, split) for name, split in splits.items()],
        "duplicates": statistics.get("duplicates"),
        "shorter_sides": _bars(statistics.get("shorter_sides") or {}),
        "left_out": _bars(statistics.get("left_out") or {}),
        "quarantined": statistics.get("quarantined", 0),
        "quarantined_by": _bars(statistics.get("quarantined_by") or {}),
        "picture": formats.picture(story.file(*where, "examples.png")),
    }


def _split(name, split):
    channels = split.get("channels", [])
    names = _channel_names(len(channels))
    return {
        "name": name,
        "count": split.get("count"),
        "bytes": formats.size(split.get("bytes")),
        "channels": [
            {"name": n, "mean": c.get("mean"), "deviation": c.get("deviation")}
            for n, c in zip(names, channels, strict=True)
        ],
        "histogram": charts.histogram(
            f"Intensities of {name}",
            {
                n: c.get("histogram") or []
                for n, c in zip(names, channels, strict=True)
            },
        ),
        "labels": _bars(split.get("labels") or {}, MOST_CLASSES),
    }


def _channel_names(count):
    known = {1: ("grey",), 3: ("red", "green", "blue")}
    return known.get(count) or tuple(f"channel {n}" for n in range(count))


def _bars(counts: dict, most: int | None = None):
    """Returns named counts with the lengths of their bars."""
    longest = max(counts.values(), default=0)
    rows = [
        {"name": name, "count": count, "share": _share(count, longest)}
        for name, count in list(counts.items())[:most]
    ]
    return {"rows": rows, "more": len(counts) - len(rows)}


def _share(value, longest):
    return round(100 * value / longest, 2) if longest else 0


def anomalies(story: Story) -> dict | None:
    """Returns what the validation found, in a failed execution, too."""
    found = story.json("ExampleValidator", "anomalies", "anomalies.json")
    if not found:
        return None
    parameters = story.steps["ExampleValidator"].execution.parameters
    return {
        "bound": parameters.get("max_drift"),
        "anomalies": found.get("anomalies", []),
        "schema": formats.flatten(found.get("schema") or {}),
        "drift": formats.flatten(found.get("drift") or {}),
    }


def evaluation(story: Story) -> dict | None:
    """Returns thresholds and scores, with how they were measured."""
    where = "Evaluator", "evaluation"
    found = story.json(*where, "metrics.json")
    if not found:
        return None
    baseline = found.get("baseline") or {}
    others = baseline.get("metrics", {})
    protocol = found.get("protocol", {})
    return {
        "thresholds": found.get("thresholds", []),
        "scores": [
            {
                "name": name,
                "value": value,
                "baseline": others.get(name),
                "too_few": name in found.get("too_few", ()),
            }
            for name, value in found.get("metrics", {}).items()
        ],
        "problem": found.get("problem"),
        "step": found.get("step"),
        "baseline": baseline,
        "protocol": protocol,
        "protocol_rows": formats.flatten(protocol),
        "picture": formats.picture(story.file(*where, "samples.png")),
    }


def blessings(story: Story) -> list[dict]:
    """Returns what Evaluator and InfraValidator say of the model."""
    names = {"Evaluator": "Quality", "InfraValidator": "Infrastructure"}
    rows = []
    for component, title in names.items():
        properties = story.properties(component, "blessing")
        blessed = properties.get("blessed")
        word = "not judged" if blessed is None else None
        rows.append(
            {
                "title": title,
                "component": component,
                "blessed": blessed,
                "word": word or ("blessed" if blessed else "not blessed"),
                "reason": properties.get("reason"),
            }
        )
    return rows


def push(story: Story) -> dict:
    """Returns the pushed version, or why there is none."""
    properties = story.properties("Pusher", "pushed_model")
    return {
        "pushed": bool(properties.get("pushed")),
        "version": properties.get("pushed_version"),
        "destination": properties.get("pushed_destination"),
        "reason": properties.get("reason") or _ending(story),
    }


def _ending(story: Story):
    """Returns why Pusher did not finish, if it did not."""
    if "pushed_model" in getattr(story.steps.get("Pusher"), "outputs", ()):
        return None
    failed = story.failed()
    if failed:
        word = "failed" if _status(failed) == "failed" else "was interrupted"
        return f"{failed.execution.component} {word}"
    if story.run.status == "running":
        return "the run has not ended"
    last = list(story.steps)[-1:]
    return f"the run ended after {last[0]}" if last else "nothing was run"
