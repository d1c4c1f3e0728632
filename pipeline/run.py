"""From raw images to a served model: `python -m pipeline.run`."""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipeline.extras import require_extra
from pipeline.extras import told_if_missing
from pipeline.flags import PipelineFlags
from pipeline.orchestration.component import Component
from pipeline.orchestration.component import ComponentError
from pipeline.orchestration.console import make_console
from pipeline.orchestration.layout import shown
from pipeline.orchestration.plan import CACHED
from pipeline.orchestration.plan import GOES_ON
from pipeline.orchestration.plan import RUNS
from pipeline.orchestration.process import Interrupted
from pipeline.orchestration.runner import ComponentFailed
from pipeline.orchestration.runner import Outcome
from pipeline.orchestration.runner import Runner
from pipeline.orchestration.selection import Selection
from pipeline.orchestration.selection import plan
from pipeline.orchestration.store import Store
from transgan_tf import cli

# The artifact that tells whether a model was pushed.
PUSHED = "PushedModel"
# Of these none needs what serves.
BEFORE_TRAINING = ("ExampleGen", "StatisticsGen", "ExampleValidator")
# As tyro and Beam's parser exit of themselves.
BAD_USAGE = 2


@dataclass(frozen=True)
class Arguments(PipelineFlags):
    """Make a served model from raw images: prepare, train, judge, push.

    The embedded digits, for minutes:

    python -m pipeline.run --dataset=mnist --model_dir=models/transgan

    Your own photographs:

    python -m pipeline.run --dataset=cats --source=photos/ --preset=celeba_64
    --model_dir=models/cats

    The same command again goes on where it stopped, and does nothing if it was
    done. Flags that are not listed here are Beam's.
    """

    pipeline_root: Path = Path("pipelines")
    """Folder for what the components make, and for the record."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Execute this component and what follows anew, such as Evaluator."""
    until: str | None = None
    """Leave out what follows this component."""
    dry_run: bool = False
    """Print what would be executed, and why, and stop."""
    require_push: bool = False
    """Exit with status 1 if no model was pushed."""

    def check(self) -> None:
        """Raises `ConfigError` for flags that cannot be meant so."""
        super().check()
        if self.require_push and self.until is not None:
            raise ComponentError(
                "--require_push does not go with --until, which leaves out "
                "the push"
            )
        for flag in ("pipeline_root", "model_dir"):
            self._check_folder(flag)

    def _check_folder(self, flag):
        """Raises `ComponentError` unless it is local, and outside the source.

        There the pipeline's own pictures would be images of the dataset.
        """
        folder = Path(getattr(self, flag))
        if ":/" in str(folder):
            # `Path` has taken one of the two slashes away.
            raise ComponentError(
                f"--{flag} {str(folder).replace(':/', '://')} is no local "
                "path: name a folder of this machine, or one that is mounted"
            )
        source = Path(self.source or "")
        if self.source is None or not source.is_dir():
            return
        if folder.resolve().is_relative_to(source.resolve()):
            raise ComponentError(
                f"--{flag} {folder} lies in the --source {source}, whose "
                "images it would join: choose a folder outside"
            )

    def options(self) -> dict:
        """Returns the flags that differ from their defaults, for the record."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }

    def selection(self) -> Selection:
        return Selection(self.from_, self.until)


def _plain(value):
    return str(value) if isinstance(value, Path) else value


def _check_what_comes_late(arguments):
    """Tells now what would be told after days of training."""
    if arguments.until not in BEFORE_TRAINING:
        require_extra("serving")
    if arguments.until in (None, "Pusher"):
        from serving.versions import check_writable

        check_writable(arguments.model_dir)


@told_if_missing()
def run(arguments: Arguments, flags: list[str]) -> int:
    """Does what the command line says; `flags` are Beam's."""
    arguments.check()
    _check_what_comes_late(arguments)
    if flags:
        from pipeline.options import UnknownFlag
        from pipeline.options import beam_options

        try:
            beam_options(flags, Arguments)
        except UnknownFlag as error:
            print(f"error: {error}", file=sys.stderr)
            return BAD_USAGE
    from pipeline.components.graph import make_components

    return launch(make_components(arguments, flags), arguments)


def launch(components: Sequence[Component], arguments: Arguments) -> int:
    """Runs a pipeline, or tells what it would do; returns the exit status."""
    if arguments.dry_run:
        return show_plan(components, arguments)
    selection = arguments.selection()
    names = selection.names(components)
    with contextlib.closing(
        Store(arguments.pipeline_root, create=True)
    ) as store:
        console = make_console(names, sys.stdout.isatty())
        runner = Runner(
            components, store, arguments.dataset, console, selection
        )
        try:
            return _status_of(runner, arguments)
        finally:
            if runner.outcome is not None:
                _report(arguments.pipeline_root, runner.outcome.run)


def _status_of(runner, arguments):
    """Runs to the end, and tells what came of it; returns the exit status."""
    try:
        with runner.console:
            outcome = runner.run(arguments.options(), summarize)
    except ComponentFailed as error:
        print(f"error: {error}", *error.details, sep="\n", file=sys.stderr)
        return cli.FAILED
    except Interrupted as error:
        without = " without --from" if arguments.from_ else ""
        print(f"{error}: the same command{without} goes on", file=sys.stderr)
        return error.status
    print(summarize(outcome))
    return cli.FAILED if arguments.require_push and not pushed(outcome) else 0


def _report(root, run):
    """Writes the report; what it fails of must not hide what the run did."""
    try:
        from pipeline.report import write_report

        print(f"report: {shown(write_report(root, run))}")
    except Exception as error:
        print(f"note: no report was written ({error})", file=sys.stderr)


def summarize(outcome: Outcome) -> str:
    """Returns what a run did and what is served now, in a sentence or two."""
    if outcome.executed:
        done = f"executed {', '.join(outcome.executed)}"
    else:
        done = "nothing to do, all is in the cache"
    last = list(outcome.made)[-1]
    found = _push(outcome)
    if found is None:
        return f"run {outcome.run}: {done}; ended after {last}"
    told = found.properties
    if pushed(outcome):
        version, where = told["pushed_version"], told["pushed_destination"]
        result = f"pushed as version {version}: {where}"
    else:
        result = "nothing was pushed"
    return f"run {outcome.run}: {done}\n{result}\nreason: {told['reason']}"


def pushed(outcome: Outcome) -> bool:
    """Tells whether the run's model is a version of the served model."""
    found = _push(outcome)
    return found is not None and found.properties["pushed"] == 1


def _push(outcome):
    outputs = [a for made in outcome.made.values() for a in made.values()]
    return next((a for a in outputs if a.type == PUSHED), None)


_WOULD = {CACHED: "cached", GOES_ON: "would go on", RUNS: "would run"}


def show_plan(components: Sequence[Component], arguments: Arguments) -> int:
    """Prints what a run would do, and writes nothing."""
    root = arguments.pipeline_root
    with contextlib.ExitStack() as stack:
        store = None
        if Store.exists(root):
            store = stack.enter_context(contextlib.closing(Store(root)))
        steps = plan(
            components, store, arguments.dataset, arguments.selection()
        )
    for name, step in steps:
        state = _WOULD.get(step.state, step.state)
        print(f"{name:<16} {state:<11} {step.reason}")
    print(f"nothing was done in {shown(root)} (--dry_run)")
    return cli.DONE


def main(argv=None) -> int:
    arguments, flags = tyro.cli(
        Arguments,
        args=cli.split_flags(argv),
        prog="python -m pipeline.run",
        use_underscores=True,
        return_unknown_args=True,
    )
    return cli.answer(lambda: run(arguments, flags))


if __name__ == "__main__":
    sys.exit(main())
