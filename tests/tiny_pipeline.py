"""A pipeline of components that take milliseconds, to test how it is run.

`python -m tests.tiny_pipeline '{"source": ..., "steps": ...}'` runs it as
`pipeline.run` would.
"""

import dataclasses
import json
import sys

from pipeline.orchestration.component import Channel
from pipeline.orchestration.component import Component
from pipeline.orchestration.component import Latest
from pipeline.run import Arguments
from pipeline.run import launch
from transgan_tf import cli


@dataclasses.dataclass(frozen=True)
class Tiny:
    """What the components are given.

    Attributes:
        source: file of the examples.
        folder: for `calls`, the pushed `versions`, and what tests put there.
        steps: lines that training writes.
        least: lines that a model must have to be blessed.
        verbose: a setting, of which nothing depends.
        pace: seconds of a training step.
        trouble: what the trainer does amiss.
    """

    source: str
    folder: str
    steps: int = 3
    least: int = 0
    verbose: bool = False
    pace: float = 0.0
    trouble: str = ""


def make_components(tiny):
    """Returns ExampleGen -> Trainer -> Evaluator -> Pusher."""
    module, where = "tests.tiny_components", {"folder": tiny.folder}
    model = Channel("Trainer", "model")
    blessing = Channel("Evaluator", "blessing")
    how = {name: getattr(tiny, name) for name in ("verbose", "pace", "trouble")}
    return [
        Component(
            "ExampleGen",
            f"{module}:example_gen",
            inputs={},
            outputs={"examples": "Examples"},
            parameters={"source": tiny.source},
            settings=where,
        ),
        Component(
            "Trainer",
            f"{module}:trainer",
            inputs={"examples": Channel("ExampleGen", "examples")},
            outputs={"model_run": "ModelRun", "model": "Model"},
            parameters={"steps": tiny.steps},
            settings=where | how,
            resumable=("model_run",),
            growing=("steps.txt", "notes/*"),
        ),
        Component(
            "Evaluator",
            f"{module}:evaluator",
            inputs={
                "model": model,
                "baseline": Latest(model, blessing, "blessed"),
            },
            outputs={"blessing": "ModelBlessing"},
            parameters={"least": tiny.least},
            settings=where,
        ),
        Component(
            "Pusher",
            f"{module}:pusher",
            inputs={"model": model, "blessing": blessing},
            outputs={"pushed_model": "PushedModel"},
            settings=where,
            standing=f"{module}:why_not_standing",
        ),
    ]


def parse(values):
    """Returns the components and flags of fields of `Tiny` and `Arguments`."""
    names = {field.name for field in dataclasses.fields(Tiny)}
    tiny = Tiny(**{k: v for k, v in values.items() if k in names})
    flags = {k: v for k, v in values.items() if k not in names}
    return make_components(tiny), Arguments(**{"dataset": "tiny"} | flags)


def main(values):
    return cli.answer(lambda: launch(*parse(values)))


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
