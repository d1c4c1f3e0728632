"""What a run has left behind: its records, and the files of its artifacts.

Nothing is taken for granted: a run that failed lacks what comes after, and
what is there may be cut short.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.orchestration.layout import Layout
from pipeline.orchestration.records import Execution
from pipeline.orchestration.records import Run
from pipeline.orchestration.records import StoredArtifact
from pipeline.orchestration.store import Store
from transgan_tf.checked import UserError

# How much of a failed component's log is shown.
LOG_BYTES = 6000


@dataclass(frozen=True)
class Step:
    """An execution as part of a run.

    Attributes:
        execution: its record.
        cached: whether it had been done before the run began.
        inputs: its artifacts by key.
        outputs: the same; empty unless it is complete.
    """

    execution: Execution
    cached: bool
    inputs: Mapping[str, StoredArtifact]
    outputs: Mapping[str, StoredArtifact]


@dataclass(frozen=True)
class Story:
    """A run with all its steps.

    Attributes:
        root: folder of the pipeline, absolute.
        run: its record.
        steps: by component, in order of execution.
        earlier: executions of other runs that its inputs come from, by id.
    """

    root: Path
    run: Run
    steps: Mapping[str, Step]
    earlier: Mapping[int, Execution]

    def folder(self, component: str, output: str) -> Path | None:
        """Returns an output's folder, also of an execution that failed."""
        step = self.steps.get(component)
        if step is None:
            return None
        layout = Layout(self.root)
        folder = layout.output(component, output, step.execution.id)
        return folder if folder.is_dir() else None

    def file(self, component: str, output: str, name: str) -> Path | None:
        folder = self.folder(component, output)
        path = folder / name if folder else None
        return path if path and path.is_file() else None

    def json(self, component: str, output: str, name: str) -> dict:
        """Returns a file's content; empty where it is missing or torn."""
        path = self.file(component, output, name)
        try:
            content = json.loads(path.read_text()) if path else {}
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def properties(self, component: str, output: str) -> dict:
        step = self.steps.get(component)
        artifact = step.outputs.get(output) if step else None
        return dict(artifact.properties) if artifact else {}

    def failed(self) -> Step | None:
        """Returns the step at which the run ended, if it did not get through.

        One that still says `running` in a run that has ended was killed.
        """
        ended = [
            step
            for step in self.steps.values()
            if step.execution.status != "complete"
        ]
        return ended[-1] if ended and self.run.status != "running" else None

    def log(self, step: Step) -> Path:
        layout = Layout(self.root)
        return layout.log(step.execution.component, step.execution.id)


def read_story(root: Path, run_id: int) -> Story:
    """Reads a run's records.

    Raises:
        UserError: if there is no such run, or no record of runs.
    """
    with contextlib.closing(Store(root)) as store:
        run = store.run(run_id)
        if run is None:
            known = ", ".join(str(run.id) for run in store.runs()) or "none"
            raise UserError(f"{root} has no run {run_id}; it has {known}")
        steps = {
            execution.component: Step(
                execution,
                cached,
                store.inputs(execution.id),
                store.outputs(execution.id),
            )
            for execution, cached in store.executions_of(run_id)
        }
        earlier = _earlier(store, steps)
    return Story(Layout(root).root, run, steps, earlier)


def newest_run(root: Path) -> int:
    """Returns the number of the newest run.

    Raises:
        UserError: if there is none.
    """
    with contextlib.closing(Store(root)) as store:
        runs = store.runs()
    if not runs:
        raise UserError(f"{root} has no runs: python -m pipeline.run makes one")
    return runs[-1].id


def tail(path: Path) -> str:
    """Returns a log's last lines; empty if there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            start = max(0, stream.tell() - LOG_BYTES)
            stream.seek(start)
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    # A progress bar writes over its line.
    lines = [line.rpartition("\r")[2] for line in text.split("\n")]
    return "\n".join(lines[1 if start else 0 :]).strip("\n")


def _earlier(store, steps):
    known = {step.execution.id for step in steps.values()}
    used = {
        artifact.execution
        for step in steps.values()
        for artifact in step.inputs.values()
    }
    return {n: store.execution(n) for n in sorted(used - known)}
