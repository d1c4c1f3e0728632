"""Runs a pipeline's components in order, as far as the cache does not know."""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field

from pipeline.orchestration.attempt import Attempt
from pipeline.orchestration.component import Component
from pipeline.orchestration.component import ComponentError
from pipeline.orchestration.console import PlainConsole
from pipeline.orchestration.console import duration
from pipeline.orchestration.console import tail
from pipeline.orchestration.layout import shown
from pipeline.orchestration.locks import locked
from pipeline.orchestration.plan import CACHED
from pipeline.orchestration.plan import GOES_ON
from pipeline.orchestration.plan import Planner
from pipeline.orchestration.plan import plain
from pipeline.orchestration.process import Interrupted
from pipeline.orchestration.process import Signals
from pipeline.orchestration.records import COMPLETE
from pipeline.orchestration.records import FAILED
from pipeline.orchestration.records import INTERRUPTED
from pipeline.orchestration.records import RUNNING
from pipeline.orchestration.records import StoredArtifact
from pipeline.orchestration.selection import Selection
from pipeline.orchestration.selection import refuse_early
from pipeline.orchestration.store import Store

_LAST_LINES = 20


class ComponentFailed(ComponentError):
    """A component did not do its work.

    Attributes:
        details: further lines for the user: the log's path, and its end where
            the error was not expected.
    """

    def __init__(self, sentence: str, details: list[str]):
        super().__init__(sentence)
        self.details = details


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        run: its number in the record.
        made: the outputs by component and output.
        executed: names of the components that were not in the cache.
    """

    run: int
    made: dict[str, dict[str, StoredArtifact]]
    executed: list[str] = field(default_factory=list)


class Runner:
    """One run of a pipeline.

    Args:
        components: in order, each after those that it depends on.
        store: the record.
        dataset: what it is run on; others' models are no baseline for it.
        console: where it tells how it goes.
        selection: which components to run.
    """

    def __init__(
        self,
        components: list[Component],
        store: Store,
        dataset: str,
        console: PlainConsole,
        selection: Selection,
    ):
        names = selection.names(components)
        self.components = components[: len(names)]
        self.forced = selection.forced(names)
        self.store = store
        self.dataset = dataset
        self.console = console
        self.planner = Planner(components, store, dataset, self.forced)
        self.signals = Signals()
        self.outcome = None

    def run(
        self, options: dict, summarize: Callable[[Outcome], str]
    ) -> Outcome:
        """Runs the components; notes in the record how it ended.

        Args:
            options: the command line's, for the record.
            summarize: makes the record's summary of what came of it.

        Raises:
            ComponentFailed: a component did; those after it were not run.
            ComponentError: one before `--from` is not in the cache.
            Interrupted: by SIGINT or SIGTERM.
        """
        run = self.store.start_run(self.dataset, options)
        self.outcome = Outcome(run, self.planner.made)
        with self.signals.taken():
            try:
                for component in self.components:
                    self._make(component)
                summary = summarize(self.outcome)
            except Interrupted as error:
                self.store.finish_run(run, INTERRUPTED, str(error))
                raise
            except Exception as error:
                self.store.finish_run(run, FAILED, str(error))
                raise
            self.store.finish_run(run, COMPLETE, summary)
        return self.outcome

    def _make(self, component):
        """Gives a component's outputs, from the cache or by executing it."""
        inputs = self.planner.inputs(component)
        key = self.planner.key(component, inputs)
        path = self.store.layout.lock(key)
        me = {"run": self.outcome.run, "pid": os.getpid()}
        with locked(path, me, self._waiting(component)) as lock:
            self.signals.check()
            step = self.planner.step(component, inputs)
            if step.state == CACHED:
                execution = step.execution.id
                self.store.use(self.outcome.run, execution)
                self.console.state(component.name, CACHED, step.reason)
            else:
                refuse_early(component.name, step, self.forced)
                execution = self._execute(component, inputs, key, step, lock)
                self.outcome.executed.append(component.name)
        self.planner.made[component.name] = self.store.outputs(execution)

    def _waiting(self, component):
        """Returns what `locked` is to call while another run is at work."""
        told = set()

        def waiting(holder):
            self.signals.check()
            if holder and holder["run"] not in told:
                told.add(holder["run"])
                who = f"for run {holder['run']}, process {holder['pid']}"
                self.console.state(component.name, "waits", who)

        return waiting

    def _execute(self, component, inputs, key, step, lock):
        """Executes a component and publishes; returns the number."""
        previous = step.execution and step.execution.id
        execution = self.store.begin(
            self.outcome.run,
            component.name,
            key,
            plain(component.parameters),
            plain(component.settings),
            self.planner.code(component),
            {name: made for name, made in inputs.items() if made is not None},
            previous,
        )
        attempt = Attempt(self.store.layout, component, inputs, execution)
        begun = time.monotonic()
        answer = attempt.finished_before() if previous else None
        if answer is None:
            answer = self._call(attempt, step, lock)
        if "outputs" not in answer:
            self._stop(attempt, answer)
        self.store.publish(execution, attempt.outputs(answer))
        took = duration(time.monotonic() - begun)
        detail = f"execution {execution}, {took}"
        self.console.state(component.name, COMPLETE, detail)
        return execution

    def _call(self, attempt, step, lock):
        name, log = attempt.component.name, attempt.log
        begins, why = GOES_ON, step.reason
        if step.state != GOES_ON:
            begins, why = RUNNING, f"execution {attempt.execution}, {why}"
        self.console.state(name, begins, f"{why}; log {shown(log)}")
        tick = functools.partial(self.console.tick, name, log)
        return attempt.call(lock, self.signals, tick)

    def _stop(self, attempt, answer):
        """Notes that a component did not do its work, and raises."""
        name, error = attempt.component.name, answer.get("error")
        status = INTERRUPTED if error is None else FAILED
        self.store.stop(attempt.execution, status, error)
        self.console.state(name, status, error or "")
        if error is None:
            self.signals.check()
        details = [f"its log is {shown(attempt.log)}"]
        if not answer["expected"]:
            lines = tail(attempt.log)[-_LAST_LINES:]
            details += [f"  {line}" for line in lines]
        raise ComponentFailed(f"{name} failed: {error}", details)
