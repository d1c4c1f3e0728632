"""Which of a pipeline's components are run, and what a run would do."""

from dataclasses import dataclass

from pipeline.orchestration.component import Component
from pipeline.orchestration.component import ComponentError
from pipeline.orchestration.plan import CACHED
from pipeline.orchestration.plan import Missing
from pipeline.orchestration.plan import Planner
from pipeline.orchestration.plan import Step
from pipeline.orchestration.store import Store
from transgan_tf.checked import nearest


@dataclass(frozen=True)
class Selection:
    """Which components are run, and how.

    Attributes:
        first: what is before it must be in the cache, it and what follows are
            executed anew; None for the cache to decide.
        last: what follows is left out; None for all.
    """

    first: str | None = None
    last: str | None = None

    def names(self, components: list[Component]) -> list[str]:
        """Returns the names of those that are part of the run.

        Raises:
            ComponentError: `first` or `last` names none, or `last` is before
                `first`.
        """
        names = [component.name for component in components]
        for flag, name in (("--from", self.first), ("--until", self.last)):
            if name is not None and name not in names:
                raise ComponentError(
                    f"{flag}={name} is no component: the pipeline has "
                    f"{', '.join(names)}{nearest(name, names)}"
                )
        if self.last is not None:
            names = names[: names.index(self.last) + 1]
        if self.first is not None and self.first not in names:
            raise ComponentError(
                f"--until={self.last} comes before --from={self.first}"
            )
        return names

    def forced(self, names: list[str]) -> frozenset[str]:
        if self.first is None:
            return frozenset()
        return frozenset(names[names.index(self.first) :])


def refuse_early(name: str, step: Step, forced: frozenset[str]) -> None:
    """Raises `ComponentError` if what is before `--from` is not in the cache.

    Args:
        name, step: of a component, and what is to be done for it.
        forced: see `Selection.forced`.
    """
    if forced and name not in forced and step.state != CACHED:
        raise ComponentError(
            f"--from takes what is before it from the cache, and {name} is "
            f"not there ({step.reason}): say --from={name}, or leave it out"
        )


def plan(
    components: list[Component],
    store: Store | None,
    dataset: str,
    selection: Selection,
) -> list[tuple[str, Step]]:
    """Returns what a run would do, by the components' names, in order.

    Raises:
        ComponentError: it would do nothing, see `refuse_early`.
    """
    names = selection.names(components)
    forced = selection.forced(names)
    planner = Planner(components, store, dataset, forced)
    steps = []
    for component in components[: len(names)]:
        try:
            inputs = planner.inputs(component)
        except Missing as missing:
            steps.append((component.name, planner.guess(component, missing)))
            continue
        step = planner.step(component, inputs)
        refuse_early(component.name, step, forced)
        steps.append((component.name, step))
        if step.state == CACHED:
            made = store.outputs(step.execution.id)
            planner.made[component.name] = made
    return steps
