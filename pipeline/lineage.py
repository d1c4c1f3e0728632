"""Tells where a served model came from: `python -m pipeline.lineage`."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipeline.orchestration import files
from pipeline.orchestration.layout import shown
from pipeline.orchestration.plan import leaves
from pipeline.orchestration.records import Execution
from pipeline.orchestration.store import Store
from transgan_tf import cli
from transgan_tf.checked import UserError

CARD = "model_card.json"
# The card's entry of who pushed the version.
PIPELINE = "pipeline"
MODEL, PUSHED = "Model", "PushedModel"
# Where a model's artifact has what is served.
_SERVING = "Format-Serving/"


class LineageError(UserError):
    """A version of which nothing is known."""


@dataclass(frozen=True)
class Arguments:
    """Tell from which data, configuration, code and metrics a model came.

    python -m pipeline.lineage models/transgan/1
    """

    version: Annotated[Path, tyro.conf.Positional]
    """Folder of the version, or a copy of it."""
    pipeline_root: Path | None = None
    """Root of the pipeline, if it is not where the version says any more."""
    json: bool = False
    """Print one JSON object."""


def trace(version: Path, pipeline_root: Path | None = None) -> dict:
    """Returns the lineage of a version, as plain data.

    Args:
        version: its folder; what counts are its card and its files.
        pipeline_root: by default the one that the card names.

    Returns:
        `"version"`, `"pipeline_root"`, `"files"` (whether they are the
        model's), `"packages"` (this project's version and the SHA-256 of its
        sources, TensorFlow's and Keras' versions), `"runs"` (numbers of those
        that pushed it, or found it pushed), `"executions"` (from the data on;
        each with its inputs and outputs, of which the properties tell metrics
        and verdicts).

    Raises:
        LineageError: the version, or the execution that made it, is not found.
        StoreError: the root has no record, or a damaged one.
    """
    if not version.is_dir():
        raise LineageError(
            f"{version} is no folder: name a version, such as models/transgan/1"
        )
    pushed_by = _card(version).get(PIPELINE) or {}
    root = pipeline_root or pushed_by.get("pipeline_root")
    if root is None:
        raise LineageError(
            f"{version} was not pushed by a pipeline, since its {CARD} names "
            "none: give --pipeline_root if you know which made it"
        )
    store = Store(root)
    try:
        return _trace(store, version, _card(version))
    finally:
        store.close()


def _card(version):
    try:
        card = json.loads((version / CARD).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LineageError(
            f"{version / CARD} cannot be read ({error})"
        ) from None
    return card if isinstance(card, dict) else {}


def _trace(store, version, card):
    found = _content(files.hashes(version))
    pushed_by = card.get(PIPELINE) or {}
    last = _named(store, pushed_by) or _with_files(store, found)
    if last is None:
        raise LineageError(
            f"no execution in {shown(store.layout.root)} made {version}: give "
            "the --pipeline_root of the pipeline that did"
        )
    executions = upstream(store, last)
    # Of Pusher an input; not the baseline, which is further up.
    near = [*store.inputs(last.id).values(), *store.outputs(last.id).values()]
    models = [_content(made.files) for made in near if made.type == MODEL]
    return {
        "version": str(version),
        "pipeline_root": str(store.layout.root),
        "files": ("" if found in models else "not ") + "those of the model",
        "packages": _packages(card),
        "runs": [run.id for run in store.runs_of(last.id)],
        "executions": [_described(store, e) for e in executions],
    }


def _packages(card):
    """Returns what a card tells of the code that exported it."""
    code = card.get("code") or {}
    return {
        "transgan-tf": code.get("version", "unknown"),
        "sources": code.get("sha256", "unknown"),
        "tensorflow": card.get("tensorflow", "unknown"),
        "keras": card.get("keras", "unknown"),
    }


def _named(store, pushed_by):
    """Returns the execution that a card names, if this is its record.

    In another record, such as a later one in the same place, the number may be
    that of a push of another model.
    """
    number = pushed_by.get("execution")
    execution = store.execution(number) if type(number) is int else None
    if not execution or execution.component != pushed_by.get("component"):
        return None
    inputs = store.inputs(execution.id).values()
    models = {made.fingerprint for made in inputs if made.type == MODEL}
    return execution if pushed_by.get("fingerprint") in models else None


def _with_files(store, found):
    """Returns what pushed the model with a version's files, or made it."""
    for model in store.artifacts_of_type(MODEL):
        if found and _content(model.files) == found:
            pushers = [e for e in store.users(model.id) if _pushes(store, e)]
            return pushers[-1] if pushers else store.execution(model.execution)
    return None


def _pushes(store, execution):
    outputs = store.outputs(execution.id).values()
    return any(made.type == PUSHED for made in outputs)


def _content(recorded):
    """Returns the hashes of what a SavedModel computes by.

    Not of its card, which the push completes.
    """
    hashes = {
        name.removeprefix(_SERVING): content
        for name, (_, content) in recorded.items()
    }
    return {
        name: content
        for name, content in hashes.items()
        if name == "saved_model.pb" or name.startswith("variables/")
    }


def upstream(store: Store, last: Execution) -> list[Execution]:
    """Returns an execution and all that it depends on, causes first."""
    order = {}

    def visit(execution):
        if execution.id not in order:
            for artifact in store.inputs(execution.id).values():
                visit(store.execution(artifact.execution))
            order[execution.id] = execution

    visit(last)
    return list(order.values())


def _described(store, execution):
    described = dataclasses.asdict(execution)
    described["inputs"] = {
        key: _brief(made) for key, made in store.inputs(execution.id).items()
    }
    outputs = store.outputs(execution.id)
    described["outputs"] = {key: _brief(made) for key, made in outputs.items()}
    return described


def _brief(artifact):
    kept = ("execution", "type", "uri", "fingerprint", "properties")
    return {name: getattr(artifact, name) for name in kept}


def describe(lineage: dict) -> str:
    """Returns a lineage as lines for users."""
    runs = ", ".join(map(str, lineage["runs"])) or "none"
    lines = [
        f"{lineage['version']}: its files are {lineage['files']}",
        f"pipeline {shown(lineage['pipeline_root'])}, runs {runs}",
        "code: "
        + ", ".join(f"{k} {v}" for k, v in lineage["packages"].items()),
    ]
    for execution in lineage["executions"]:
        lines += ["", *_lines(execution)]
    return "\n".join(lines)


def _lines(execution):
    yield (
        f"{execution['component']}, execution {execution['id']}, "
        f"{execution['status']} {execution['finished']} on {execution['host']}"
    )
    yield f"  code        {execution['code'][:16]}"
    for key, made in execution["inputs"].items():
        yield f"  input       {key}: {_named_artifact(made)}"
    for name, value in leaves(execution["parameters"]).items():
        yield f"  parameter   {name}: {_text(value)}"
    for key, made in execution["outputs"].items():
        yield f"  output      {key}: {_named_artifact(made)}"
        for name, value in made["properties"].items():
            yield f"    {name}: {_text(value)}"


def _named_artifact(made):
    return f"{made['uri']} ({made['type']} {made['fingerprint'][:16]})"


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    lineage = trace(arguments.version, arguments.pipeline_root)
    print(json.dumps(lineage) if arguments.json else describe(lineage))
    return cli.DONE


def main(argv=None) -> int:
    command = "python -m pipeline.lineage"
    return cli.run(Arguments, act, command, argv, needs_tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
