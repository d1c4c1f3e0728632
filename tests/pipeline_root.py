"""A pipeline's root as runs leave it behind, made without training anything."""

import hashlib
import json

import numpy as np
from PIL import Image

from pipeline.orchestration.store import Store

PROTOCOL = {
    "num_images": 1234,
    "reference_images": 4321,
    "features": "classifier",
    "truncation": 1.0,
}


class Root:
    """Writes runs, executions and artifacts below a folder.

    Executions take 90 seconds times their number, one after the other.
    """

    def __init__(self, path):
        self.path = path
        self.store = Store(path, create=True)
        self.minute = 0

    def start(self, dataset="digits", **options):
        self.id = self.store.start_run(dataset, options)
        return self.id

    def finish(self, status="complete", summary=None):
        self.store.finish_run(self.id, status, summary)
        self._set("runs", self.id, "2026-01-31T12:00:00+00:00", 2 * 3600)
        self.store.close()
        self.store = Store(self.path)

    def begin(self, component, parameters=None, settings=None, **inputs):
        number = self.store.begin(
            self.id,
            component,
            hashlib.sha256(component.encode()).hexdigest(),
            parameters or {},
            settings or {},
            "c0de" * 16,
            inputs,
            None,
        )
        self.log(component, number, f"{component} begins\n")
        return number

    def complete(self, number, outputs):
        """Publishes `{output: (type, properties)}`; returns the artifacts."""
        component = self.store.execution(number).component
        made = {
            output: {
                "type": kind,
                "uri": f"{component}/{output}/{number}",
                "fingerprint": f"{number:02x}{ord(output[0]):02x}" * 16,
                "properties": properties,
                "files": {},
            }
            for output, (kind, properties) in outputs.items()
        }
        self.store.publish(number, made)
        self._set("executions", number, "2026-01-31T12:00:00", 90 * number)
        return self.store.outputs(number)

    def _set(self, table, number, started, seconds):
        finished = f"strftime('%Y-%m-%dT%H:%M:%S', ?, '+{seconds} seconds')"
        self.store._database._connection.execute(
            f"UPDATE {table} SET started = ?, finished = {finished} "
            "WHERE id = ?",
            (started, started, number),
        )

    def folder(self, component, output, number):
        folder = self.path / component / output / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, component, number, text):
        log = self.store.layout.log(component, number)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as stream:
            stream.write(text)


def write_json(path, content):
    path.write_text(json.dumps(content))


def write_grid(path, height, width, seed):
    """Writes a picture of odd size, of soft random blots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(noise).resize((width, height), 3).save(path)


def statistics(channels=1):
    """Returns a `statistics.json` of two splits and two classes."""
    histogram = [500] + [0] * 254 + [300]
    channel = {"mean": 33.25, "deviation": 78.5, "histogram": histogram}
    train = {
        "count": 4321,
        "bytes": 1_500_000,
        "channels": [channel] * channels,
        "labels": {"one": 4000, "two": 321},
    }
    small = train | {"count": 679, "bytes": 240_000, "labels": {"one": 679}}
    return {
        "splits": {"train": train, "validation": small},
        "image_size": 28,
        "channels": channels,
        "classes": ["one", "two"],
        "duplicates": 11,
        "shorter_sides": {"0-63": 4000, "64-127": 1000},
        "left_out": {"too small": 13},
        "quarantined": 7,
        "quarantined_by": {"truncated": 5, "empty": 2},
        "examples_png": "examples.png",
    }


def metrics_lines():
    """Returns lines of a `metrics.jsonl`; the best FID is 12.5 at 48,000."""
    lines = []
    for step in range(0, 4001, 50):
        images = 16 * step
        if step:
            lines.append(
                {
                    "step": step,
                    "images": images,
                    "discriminator_loss": 5 * 0.999**step - 1,
                    "generator_loss": 1 - 0.5 * 0.998**step,
                    "images_per_second": 217.4,
                }
            )
        fid = {0: 1131.96, 1000: 60.5, 2000: 20.25, 3000: 12.5, 4000: 14.75}
        if step in fid:
            scores = {"metrics": {"fid": fid[step]}, "protocol": PROTOCOL}
            record = {"step": step, "images": images, "evaluation": scores}
            lines.append(record)
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def write_data(root, dataset="digits", found=()):
    """Executes ExampleGen, StatisticsGen and begins ExampleValidator.

    Returns:
        The artifacts by output, and ExampleValidator's number.
    """
    number = root.begin(
        "ExampleGen", {"source": f"photos/{dataset}", "image_size": 28}
    )
    made = root.complete(number, {"examples": ("Examples", {})})
    number = root.begin("StatisticsGen", **made)
    folder = root.folder("StatisticsGen", "statistics", number)
    write_json(folder / "statistics.json", statistics())
    write_grid(folder / "examples.png", 227, 229, seed=1)
    made |= root.complete(number, {"statistics": ("ExampleStatistics", {})})
    number = root.begin(
        "ExampleValidator", {"max_drift": 0.25}, statistics=made["statistics"]
    )
    folder = root.folder("ExampleValidator", "anomalies", number)
    write_json(
        folder / "anomalies.json",
        {
            "schema": {"image_size": 28, "splits": {"train": {"min": 1}}},
            "anomalies": list(found),
            "drift": {} if found else {"channel 0": 0.03125},
        },
    )
    return made, number


def complete_validation(root, number):
    """Finishes the ExampleValidator that `write_data` began."""
    made = root.complete(
        number,
        {
            "anomalies": ("ExampleAnomalies", {"valid": 1}),
            "blessing": ("ExampleBlessing", {"valid": 1}),
        },
    )
    return {"examples_blessing": made["blessing"]}


def write_training(root, made, dataset="digits", **inputs):
    """Begins Trainer and writes its run folder; returns its number."""
    number = root.begin(
        "Trainer",
        {"training": {"steps": 4000, "batch_size": 8}},
        {"strategy": "auto"},
        examples=made["examples"],
        examples_blessing=made["examples_blessing"],
        **inputs,
    )
    folder = root.folder("Trainer", "model_run", number) / dataset
    write_grid(folder / "samples/step-000000000.png", 223, 225, seed=2)
    write_grid(folder / "samples/step-000001000.png", 223, 225, seed=3)
    write_grid(folder / "samples/step-000004000.png", 223, 225, seed=4)
    (folder / "metrics.jsonl").write_text(metrics_lines())
    return number


def write_judgement(root, made, blessed, baseline=None):
    """Executes Evaluator, InfraValidator and Pusher."""
    inputs = {name: made[name] for name in ("examples", "model_run", "model")}
    if baseline:
        inputs["baseline_run"] = baseline
    number = root.begin("Evaluator", {"max_fid": 50}, **inputs)
    folder = root.folder("Evaluator", "evaluation", number)
    write_json(folder / "metrics.json", evaluation(blessed, baseline))
    write_grid(folder / "samples.png", 231, 233, seed=5)
    reason = "fid 12.5 is at most 50" if blessed else "fid 12.5 is above 10"
    blessing = {"blessed": int(blessed), "reason": reason}
    evaluated = root.complete(
        number,
        {
            "evaluation": ("ModelEvaluation", {}),
            "blessing": ("ModelBlessing", blessing),
        },
    )
    number = root.begin("InfraValidator", model=made["model"])
    blessing = {"blessed": 1, "reason": "3 signatures answered"}
    checked = root.complete(number, {"blessing": ("InfraBlessing", blessing)})
    number = root.begin(
        "Pusher",
        model=made["model"],
        model_blessing=evaluated["blessing"],
        infra_blessing=checked["blessing"],
        evaluation=evaluated["evaluation"],
    )
    pushed = {
        "pushed": int(blessed),
        "pushed_version": "7" if blessed else None,
        "pushed_destination": "models/transgan/7" if blessed else None,
        "reason": None if blessed else "the model was not blessed",
    }
    root.complete(number, {"pushed_model": ("PushedModel", pushed)})


def evaluation(blessed, baseline):
    """Returns a `metrics.json` of the FID 12.5."""

    def threshold(kind, bound, passed):
        values = {"bound": bound, "measured": 12.5, "passed": passed}
        return {"name": "fid", "kind": kind} | values

    thresholds = [threshold("value", 50 if blessed else 10, blessed)]
    other = None
    if baseline:
        other = {"metrics": {"fid": 12.25}, "run": baseline.uri, "step": 4000}
        change = {"baseline": 12.25, "increase": 0.05}
        thresholds.append(threshold("change", 12.8625, True) | change)
    return {
        "metrics": {"fid": 12.5, "is": 6.2062},
        "too_few": ["is"],
        "problem": "",
        "step": 4000,
        "protocol": PROTOCOL,
        "baseline": other,
        "thresholds": thresholds,
        "reason": "not read",
    }


def write_first_run(root, dataset="digits", blessed=True):
    """Writes a whole run, its executions numbered from 1 to 7."""
    root.start(dataset, steps=4000, max_fid=50, preset=None)
    made, number = write_data(root, dataset)
    made |= complete_validation(root, number)
    number = write_training(root, made, dataset)
    made |= root.complete(
        number, {"model_run": ("ModelRun", {}), "model": ("Model", {})}
    )
    write_judgement(root, made, blessed)
    summary = "pushed version 7" if blessed else "nothing was pushed"
    root.finish(summary=summary)
    return made


def write_second_run(root, made):
    """Writes a run with the first one's data and its model as the baseline."""
    root.start("digits", steps=5000)
    for number in (1, 2, 3):
        root.store.use(root.id, number)
    baseline = made["model_run"]
    number = write_training(root, made)
    made = made | root.complete(
        number, {"model_run": ("ModelRun", {}), "model": ("Model", {})}
    )
    write_judgement(root, made, False, baseline)
    root.finish(summary="nothing was pushed: the model was not blessed")
