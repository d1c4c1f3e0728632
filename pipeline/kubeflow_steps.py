"""A component's body as a step of a Kubeflow pipeline.

Runs in the image, in the process that kfp starts.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.orchestration import files
from pipeline.orchestration.component import Artifact
from pipeline.orchestration.component import Component
from transgan_tf import cli

# There is one execution of a component in a run of Kubeflow's.
_EXECUTION = "1"


def run(
    name: str,
    function: str,
    inputs: dict,
    outputs: dict,
    resumable: Sequence[str],
    arguments: str,
    work_dir: str,
) -> None:
    """Calls a component's function with kfp's artifacts; ends the process if
    it fails.

    What it makes becomes an artifact when it is whole: until then it lies below
    `work_dir`, at a place that follows from the run and the step. A step that
    Kubeflow starts again finds there what an earlier try left.

    Args:
        name, function: of the `Component`.
        inputs: artifacts of `kfp.dsl`, or None, by keyword.
        outputs: artifacts of `kfp.dsl` to be made, by keyword.
        resumable: outputs that a second try goes on with.
        arguments: JSON of parameters and settings. As text, since kfp makes
            floats of the integers in a dictionary.
        work_dir: on a volume that outlives the step; or "", for a temporary
            folder of the step.
    """
    component = Component(name, function, {}, {}, resumable=resumable)
    status = cli.answer(
        lambda: _run(component, inputs, outputs, arguments, work_dir)
    )
    if status:
        sys.exit(status)


def _run(component, inputs, outputs, arguments, work_dir):
    root = _root(outputs, work_dir)
    folders = {key: root / component.name / key / _EXECUTION for key in outputs}
    for key, folder in folders.items():
        if key not in component.resumable:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    properties = component.load()(
        **{key: _artifact(made) for key, made in inputs.items()},
        **folders,
        **json.loads(arguments),
    )
    for key, folder in folders.items():
        found = {"fingerprint": files.fingerprint(files.record(folder))}
        outputs[key].metadata.update((properties or {}).get(key, {}) | found)
        # Copied, so that a try that ends here leaves the next one all.
        shutil.copytree(folder, outputs[key].path, dirs_exist_ok=True)
    shutil.rmtree(root)
    return cli.DONE


def _root(outputs, work_dir):
    """Returns the folder that stands for the pipeline's root.

    Its name is the address of the step's outputs, which tells the run.
    """
    address = next(iter(outputs.values())).uri
    place = os.path.dirname(address.partition("://")[2] or address)
    base = work_dir or os.path.join(tempfile.gettempdir(), "kubeflow")
    return Path(base, place.lstrip("/"))


def _artifact(made):
    """Returns what the function takes for an artifact of kfp's."""
    if made is None:
        return None
    path, properties = Path(made.path), dict(made.metadata)
    fingerprint = properties.pop("fingerprint", None)
    if fingerprint is None:
        # It was not made by a step, but imported.
        fingerprint = files.fingerprint(files.record(path))
    return Artifact(path, type(made).__name__, fingerprint, properties)
