"""Components that take milliseconds; each notes its calls in a file `calls`.

Apart from what runs them, so that their processes start quickly.
"""

import json
import os
import signal
import time
from pathlib import Path

from pipeline.orchestration.component import HOLDS_WITH
from pipeline.orchestration.component import TRANSIENT
from pipeline.orchestration.component import ComponentError

SAVED_MODEL = "Format-Serving/saved_model.pb"


def note(folder, name):
    with open(Path(folder, "calls"), "a") as file:
        file.write(f"{name}\n")


def example_gen(examples, source, folder):
    note(folder, "ExampleGen")
    (examples / "data.txt").write_text(Path(source).read_text())


def trainer(examples, model_run, model, steps, folder, verbose, pace, trouble):
    note(folder, "Trainer")
    data = (examples.path / "data.txt").read_text()
    log = model_run / "steps.txt"
    done = len(log.read_text().splitlines()) if log.exists() else 0
    print(f"goes on at {done}" if done else "starts", flush=True)
    try:
        for step in range(done, steps):
            time.sleep(pace)
            with open(log, "a") as file:
                file.write(f"{step}\n")
            TROUBLES.get(trouble, bool)()
    except (SystemExit, KeyboardInterrupt):
        (model_run / "saved").write_text("by a signal")
        raise
    (model_run / "saved").unlink(missing_ok=True)
    (model / "Format-Serving").mkdir()
    (model / SAVED_MODEL).write_text(f"{data}: {steps} steps")
    return {"model": {"steps": steps}}


def refuse():
    raise ComponentError("the images are upside down")


def crash():
    raise ZeroDivisionError("of all things")


def deafen():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


TROUBLES = {
    "refuse": refuse,
    "crash": crash,
    "die": lambda: os.kill(os.getpid(), 9),
    "deaf": deafen,
}


def evaluator(model, baseline, blessing, least, folder):
    note(folder, "Evaluator")
    busy = Path(folder, "busy").exists()
    blessed = int(model.properties["steps"] >= least and not busy)
    (blessing / ("BLESSED" if blessed else "NOT_BLESSED")).touch()
    told = None if baseline is None else baseline.path / SAVED_MODEL
    (blessing / "baseline.txt").write_text(told.read_text() if told else "none")
    told = {"blessed": blessed, "reason": "too few steps"}
    return {"blessing": told | {TRANSIENT: int(busy)}}


def pusher(model, blessing, pushed_model, folder):
    """Pushes a version once for each execution, however often it is called."""
    note(folder, "Pusher")
    if not blessing.properties["blessed"]:
        reason = f"not blessed: {blessing.properties['reason']}"
        return {"pushed_model": {"pushed": 0, "reason": reason}}
    versions = Path(folder, "versions")
    versions.mkdir(exist_ok=True)
    me = {"execution": int(pushed_model.name), "component": "Pusher"}
    me["pipeline_root"] = str(pushed_model.parents[2])
    me["fingerprint"] = model.fingerprint
    for version in sorted(versions.iterdir()):
        if (
            json.loads((version / "model_card.json").read_text())["pipeline"]
            == me
        ):
            return {"pushed_model": told_of(version)}
    staging = pushed_model / "staging"
    staging.mkdir()
    text = (model.path / SAVED_MODEL).read_text()
    (staging / "saved_model.pb").write_text(text)
    card = {"pipeline": me, "code": {"version": "0.7", "sha256": "f00"}}
    (staging / "model_card.json").write_text(json.dumps(card))
    version = versions / str(len(list(versions.iterdir())) + 1)
    staging.rename(version)
    return {"pushed_model": told_of(version)}


def why_not_standing(inputs, outputs):
    told = outputs["pushed_model"].properties
    if not told["pushed"]:
        return None
    others = Path(told["pushed_destination"]).parent.iterdir()
    newest = max(others, key=lambda version: int(version.name))
    return None if newest.name == told["pushed_version"] else "it is old"


def told_of(version):
    return {
        "pushed": 1,
        "pushed_version": version.name,
        "pushed_destination": str(version),
        "reason": "enough steps",
        HOLDS_WITH: str(version),
    }
