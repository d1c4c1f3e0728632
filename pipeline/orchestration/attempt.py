"""One attempt at an execution: what its process is told, and what it says."""

from collections.abc import Callable
from collections.abc import Mapping

from pipeline.orchestration import files
from pipeline.orchestration import process
from pipeline.orchestration.component import Component
from pipeline.orchestration.execute import OUTPUT
from pipeline.orchestration.layout import Layout
from pipeline.orchestration.plan import plain
from pipeline.orchestration.process import Signals
from pipeline.orchestration.records import StoredArtifact


class Attempt:
    """Calls a component's function in a process of its own.

    Args:
        layout: of the pipeline's root.
        component: what to execute.
        inputs: by key.
        execution: its number in the record.
    """

    def __init__(
        self,
        layout: Layout,
        component: Component,
        inputs: Mapping[str, StoredArtifact | None],
        execution: int,
    ):
        self.layout = layout
        self.component = component
        self.inputs = inputs
        self.execution = execution
        self.folder = layout.execution(execution)
        self.log = layout.log(component.name, execution)
        self.folders = {
            output: layout.output(component.name, output, execution)
            for output in component.outputs
        }

    def finished_before(self) -> dict | None:
        """Returns what a process said whose launcher died before it.

        None if it did not finish, or what it made is not there any more.
        """
        answer = files.read_json(self.folder / OUTPUT) or {}
        for output, made in answer.get("outputs", {}).items():
            if files.damage(self.folders[output], made["files"]):
                return None
        return answer if "outputs" in answer else None

    def call(
        self, lock: int, signals: Signals, tick: Callable[[], None]
    ) -> dict:
        """Makes the outputs' folders and runs; see `process.run`."""
        for output, folder in self.folders.items():
            if output in self.component.resumable:
                folder.mkdir(parents=True, exist_ok=True)
            else:
                files.empty(folder)
        request = self._request()
        return process.run(self.folder, request, self.log, lock, signals, tick)

    def _request(self):
        outputs = {
            output: {"path": str(self.folders[output]), "type": kind}
            for output, kind in self.component.outputs.items()
        }
        return {
            "component": self.component.name,
            "function": self.component.function,
            "inputs": {
                k: self._described(made) for k, made in self.inputs.items()
            },
            "outputs": outputs,
            "parameters": plain(self.component.parameters),
            "settings": plain(self.component.settings),
        }

    def _described(self, artifact):
        return artifact and {
            "path": str(self.layout.root / artifact.uri),
            "type": artifact.type,
            "fingerprint": artifact.fingerprint,
            "properties": artifact.properties,
        }

    def outputs(self, answer: dict) -> dict[str, dict]:
        """Returns what the record keeps of the outputs."""
        return {
            output: made
            | {
                "uri": self.folders[output]
                .relative_to(self.layout.root)
                .as_posix()
            }
            for output, made in answer["outputs"].items()
        }
