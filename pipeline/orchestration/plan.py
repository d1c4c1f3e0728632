"""What is to be done for a component: from the cache, on, or anew, and why."""

import json
import os
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.orchestration import code
from pipeline.orchestration import files
from pipeline.orchestration.component import HOLDS_WITH
from pipeline.orchestration.component import TRANSIENT
from pipeline.orchestration.component import Channel
from pipeline.orchestration.component import Component
from pipeline.orchestration.component import Latest
from pipeline.orchestration.component import load
from pipeline.orchestration.layout import shown
from pipeline.orchestration.records import COMPLETE
from pipeline.orchestration.records import RUNNING
from pipeline.orchestration.records import Execution
from pipeline.orchestration.records import StoredArtifact
from pipeline.orchestration.store import Store

CACHED, GOES_ON, RUNS, UNKNOWN = "cached", "goes on", "runs", "unknown"


@dataclass(frozen=True)
class Step:
    """What is to be done for a component.

    Attributes:
        state: `CACHED`, `GOES_ON` or `RUNS`, or `UNKNOWN` as long as an input
            is not made.
        reason: for users.
        execution: the one that is taken or goes on; None for a new one.
    """

    state: str
    reason: str
    execution: Execution | None = None


class Missing(Exception):
    """An input is not made yet; its text is the component that makes it."""


class Planner:
    """Decides for the components of one run.

    Args:
        components: of the run.
        store: the record, or None where there is none.
        dataset: of this run; others' runs approve nothing for it.
        forced: names of the components that are executed anew.
    """

    def __init__(
        self,
        components: Sequence[Component],
        store: Store | None,
        dataset: str,
        forced: frozenset = frozenset(),
    ):
        self.growing = {made.name: made.growing for made in components}
        self.store = store
        self.dataset = dataset
        self.forced = forced
        self.codes = {}
        self.made: dict[str, dict[str, StoredArtifact]] = {}

    def inputs(self, component: Component) -> dict[str, StoredArtifact | None]:
        """Returns a component's inputs by key.

        Raises:
            Missing: one is not made yet.
        """
        return {
            key: self._input(source) for key, source in component.inputs.items()
        }

    def _input(self, source: Channel | Latest):
        channel = source.channel if isinstance(source, Latest) else source
        if channel.component not in self.made:
            raise Missing(channel.component)
        own = self.made[channel.component][channel.output]
        if isinstance(source, Channel):
            return own
        if self.store is None:
            return None
        return self._latest(source, own)

    def _latest(self, source, own):
        """Returns the newest approved artifact that is whole, but for `own`."""
        made = (source.channel.component, source.channel.output)
        judge = (source.approval.component, source.approval.output)
        for artifact, said in self.store.judged(made, judge, self.dataset):
            approved = said.get(source.condition) == 1
            other = artifact.fingerprint != own.fingerprint
            if approved and other and self.damage_of(artifact) is None:
                return artifact
        return None

    def damage_of(self, artifact: StoredArtifact) -> str | None:
        folder = self.store.layout.root / artifact.uri
        maker = artifact.uri.partition("/")[0]
        return files.damage(folder, artifact.files, self.growing.get(maker, ()))

    def key(self, component: Component, inputs: Mapping) -> str:
        """Returns the cache key: all that the outputs depend on."""
        prints = {k: made and made.fingerprint for k, made in inputs.items()}
        return files.digest(
            {
                "component": component.name,
                "function": component.function,
                "outputs": dict(component.outputs),
                "parameters": plain(component.parameters),
                "inputs": prints,
                "code": self.code(component),
            }
        )

    def code(self, component: Component) -> str:
        """Returns the fingerprint of a component's code, read once."""
        if component.function not in self.codes:
            found = code.fingerprint(component.function)
            self.codes[component.function] = found
        return self.codes[component.function]

    def step(self, component: Component, inputs: Mapping) -> Step:
        """Decides, with all inputs known."""
        found = None
        if self.store is not None:
            found = self.store.with_key(self.key(component, inputs))
        if found is None:
            return Step(RUNS, self._difference(component, inputs))
        if component.name in self.forced:
            return Step(RUNS, "--from says so")
        if found.status != COMPLETE:
            # Of one that was killed the record says that it runs.
            ended = "killed" if found.status == RUNNING else found.status
            return Step(GOES_ON, f"execution {found.id} ({ended})", found)
        damage = self._damage(component, found)
        if damage:
            reason = f"of execution {found.id}, {damage}"
            return Step(RUNS, f"{reason}: it is made again")
        return Step(CACHED, f"execution {found.id}", found)

    def guess(self, component: Component, missing: Missing) -> Step:
        """Decides what can be, as long as an input is not made."""
        own = self.code(component)
        parameters = plain(component.parameters)
        if component.name in self.forced:
            return Step(RUNS, "--from says so")
        for execution in self._executions(component):
            if (execution.parameters, execution.code) == (parameters, own):
                return Step(UNKNOWN, f"depends on what {missing} makes")
        return Step(RUNS, self._difference(component, None))

    def _executions(self, component):
        if self.store is None:
            return []
        return self.store.executions(component.name, self.dataset)

    def _damage(self, component, execution):
        outputs = self.store.outputs(execution.id)
        for artifact in outputs.values():
            damage = self.damage_of(artifact)
            if damage:
                return f"{artifact.output}/{damage}"
            elsewhere = artifact.properties.get(HOLDS_WITH)
            if elsewhere and not os.path.exists(elsewhere):
                return f"{shown(elsewhere)} is missing"
            if artifact.properties.get(TRANSIENT) == 1:
                return f"{artifact.output} may come out otherwise now"
        if component.standing is None:
            return None
        standing = load(component.standing)
        return standing(self.store.inputs(execution.id), outputs)

    def _difference(self, component, inputs):
        """Returns what changed since the newest execution, for users.

        `inputs` are None where they are not known.
        """
        executions = self._executions(component)
        if not executions:
            return "never ran before"
        newest = executions[0]
        reasons = _changes(newest.parameters, plain(component.parameters))
        if newest.code != self.code(component):
            reasons.append("its code changed")
        if inputs is not None:
            reasons += self._changed_inputs(newest, inputs)
        since = f"since execution {newest.id}"
        return f"{since}: {'; '.join(reasons)}" if reasons else "anew"

    def _changed_inputs(self, newest, inputs):
        before = self.store.inputs(newest.id)
        return [
            f"input {key} changed"
            for key, artifact in inputs.items()
            if _print(before.get(key)) != _print(artifact)
        ]


def plain(values: Mapping) -> dict:
    """Returns plain data as it comes back from JSON: lists, not tuples."""
    return json.loads(json.dumps(dict(values)))


def _print(artifact):
    return artifact and artifact.fingerprint


def _changes(before, after):
    """Returns `name: old -> new` for each parameter that differs."""
    before, after = leaves(before), leaves(after)
    names = sorted(before.keys() | after.keys())
    return [
        f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in names
        if before.get(name, "absent") != after.get(name, "absent")
    ]


def leaves(values, path: str = "") -> dict:
    """Returns what is nested in objects, by dotted names."""
    if not isinstance(values, dict) or not values:
        return {path: values}
    found = {}
    for key, value in values.items():
        found |= leaves(value, f"{path}.{key}" if path else key)
    return found
