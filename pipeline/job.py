"""One job from start to end: its plan, its progress, its result."""

import re
import threading
import time
import uuid

from apache_beam.io.filesystems import FileSystems
from tqdm import tqdm

from pipeline import files
from pipeline.engine import make_pipeline
from pipeline.engine import workers_end_when_interrupted
from pipeline.output import WORK
from pipeline.output import JobError
from pipeline.output import is_done
from pipeline.output import opened
from pipeline.output import refuse_others
from pipeline.output import remove_leftovers
from pipeline.results import Outcome
from pipeline.results import Plan
from pipeline.results import read_outcome
from pipeline.sources import Source
from pipeline.sources import find_source
from pipeline.spill import spilled_images
from pipeline.transforms import create_pipeline
from transgan_tf import cli
from transgan_tf.manifest import MANIFEST
from transgan_tf.manifest import QUARANTINE
from transgan_tf.manifest import DatasetSettings

# How often the progress is looked at; on a remote file system that costs.
LOCAL_SECONDS, REMOTE_SECONDS = 0.5, 15.0

# Lines of tracebacks that tell of the machine or the source, not of our code.
_OF_THE_MACHINE = (
    r"^(?:[\w.]+\.)?"
    r"((?:OS|IO|BeamIO|Permission|FileNotFound|Memory|Source|Job)Error: .*)"
)


def make_plan(
    dataset: str,
    settings: DatasetSettings,
    source: Source,
    output_dir: str,
    max_bad_fraction: float,
) -> Plan:
    """Lists the source and says what is to be made of it.

    Raises:
        JobError: the source holds no image.
    """
    facts = source.facts()
    if not facts.count:
        raise JobError(
            f"the {facts.kind} holds no PNG, JPEG, WebP, BMP or GIF file: "
            "check --source"
        )
    # Workers may have another working directory.
    output = files.join(files.absolute(output_dir), dataset)
    work = files.join(output, f"{WORK}{uuid.uuid4().hex}")
    return Plan(
        dataset,
        settings,
        facts,
        source.classes,
        output,
        work,
        max_bad_fraction,
    )


def make_dataset(
    dataset: str,
    settings: DatasetSettings,
    source: dict,
    output_dir: str,
    max_bad_fraction: float,
    options,
    overwrite: bool = False,
) -> int:
    """Finds the source and makes the dataset; returns the exit status.

    Args:
        dataset: its name, which becomes a folder in `output_dir`.
        settings: `DatasetSettings`.
        source: keywords of `pipeline.sources.find_source`.
        output_dir: local, or of any file system that Beam knows.
        max_bad_fraction: share of bad images above which it fails.
        options: Beam's `PipelineOptions`.
        overwrite: whether to replace what the dataset's folder holds.

    Raises:
        UserError: says why there is no dataset.
    """
    # Remote file systems take theirs before there is a pipeline.
    FileSystems.set_options(options)
    found = find_source(**source)
    plan = make_plan(dataset, settings, found, output_dir, max_bad_fraction)
    return prepare(plan, found, options, overwrite)


def prepare(plan: Plan, source: Source, options, overwrite: bool) -> int:
    """Makes the dataset unless it is there; returns the exit status."""
    if not overwrite:
        if is_done(plan, source):
            remove_leftovers(plan.output)
            print(f"{plan.output} is there already, of these images")
            return cli.DONE
        refuse_others(plan.output)
    # Before anything is touched: a runner may not exist.
    pipeline = _pipeline(options)
    start, started = time.monotonic(), time.time()
    with opened(plan):
        create_pipeline(pipeline, source, plan)
        with Progress(plan), workers_end_when_interrupted():
            _run(pipeline)
        outcome = read_outcome(plan)
    if not outcome.accepted:
        raise JobError(outcome.problem)
    # So images that change while the job runs are newer than its manifest;
    # object stores date by themselves, where such a change goes unnoticed.
    files.set_modified(files.join(plan.output, MANIFEST), started)
    print(summary(plan, outcome, time.monotonic() - start))
    return cli.DONE


def _pipeline(options):
    try:
        return make_pipeline(options)
    except (AttributeError, ImportError, ValueError) as error:
        what = str(error).splitlines()[0]
        raise JobError(
            f"Beam cannot make the runner ({what}): check --runner"
        ) from None


def _run(pipeline):
    """Runs to the end; what the machine did to a worker becomes a sentence."""
    try:
        pipeline.run().wait_until_finish()
    except RuntimeError as error:
        # Beam passes a worker's exception on as the text of its traceback.
        told = re.findall(_OF_THE_MACHINE, str(error), re.MULTILINE)
        if not told:
            raise
        raise JobError(
            f"a worker failed ({told[-1]}): mend that and start the job again"
        ) from None


class Progress:
    """Shows on standard error how many images are done, while a job runs."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *error):
        self.stopped.set()
        self.thread.join()

    def _show(self):
        remote = files.is_remote(self.plan.work)
        seconds = REMOTE_SECONDS if remote else LOCAL_SECONDS
        with tqdm(
            total=self.plan.source.count, unit="img", dynamic_ncols=True
        ) as bar:
            while not self.stopped.wait(seconds):
                self._update(bar)
            self._update(bar)

    def _update(self, bar):
        bar.n, bad = spilled_images(self.plan.work)
        if bad:
            bar.set_postfix(bad=bad, refresh=False)
        bar.refresh()


def summary(plan: Plan, outcome: Outcome, seconds: float) -> str:
    """Returns what the user is told at the end."""
    images = sum(outcome.images.values())
    lines = [
        f"{plan.output}: {images:,} images of {plan.settings.image_size} px"
    ]
    if outcome.images["validation"]:
        counts = (f"{n:,} {split}" for split, n in outcome.images.items())
        lines.append(f"  {', '.join(counts)}")
    for reason, count in outcome.left_out.items():
        lines.append(f"  {count:,} left out: {reason}")
    if outcome.quarantined:
        lines.append(f"  {outcome.quarantined:,} bad, see {QUARANTINE}")
    lines.append(
        f"  in {seconds:.0f} s, {images / seconds:.0f} images a second"
    )
    return "\n".join(lines)
