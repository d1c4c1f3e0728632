"""Several processes that train one model together.

`TF_CONFIG` names their addresses and which of them this process is. They make
every step together, each on rows of its own, and hold the same weights. The
first of them, the chief, alone reads and writes the run's folder; the others
get its state at the start, and write nothing.

What one worker cannot do none goes on with. Until the first step its sentence
is told to the others (`Workers.together`). From then on TensorFlow's
coordination service notices a worker that is silent, and the next collective
operation of the others fails (`losing_none`). So a worker may wait as long as
it takes for another that saves or evaluates.
"""

import contextlib
import faulthandler
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

from transgan_tf.checked import UserError
from transgan_tf.checked import differences
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.checkpoints import state
from transgan_tf.configs import Config

# How long the first one waits at the start for the last.
START_SECONDS = 600
# A worker that is silent for so long is lost. TensorFlow's 10 seconds are few
# on a machine with much else to do.
SILENT_SECONDS = 30
# What the others' operations raise then. Seen on TensorFlow 2.21, after SIGKILL
# and SIGSTOP of the chief and of another: the first two.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
)
# An error of another worker may arrive as one of its own kind, with this.
_ABORTED = "Collective ops is aborted by"
# How many differences of two configurations a sentence names.
_NAMED = 5
_EXAMPLE = (
    '{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)

_log = logging.getLogger(__name__)


class WorkerError(UserError):
    """Workers that cannot train together; its text is one sentence."""


# === TF_CONFIG ===


@dataclass(frozen=True)
class Cluster:
    """The workers' addresses, the chief's first, and which one this is."""

    addresses: tuple[str, ...]
    index: int

    def describe(self, index: int) -> str:
        return f"worker {index} ({self.addresses[index]})"

    def others(self) -> str:
        others = set(range(len(self.addresses))) - {self.index}
        return " or ".join(self.describe(index) for index in sorted(others))


def read_cluster(text: str | None) -> Cluster:
    """Reads `TF_CONFIG`.

    Args:
        text: JSON of the form of `_EXAMPLE`; a job `"chief"` of one task may
            stand beside the workers.

    Raises:
        WorkerError: it is not that, or names one worker alone.
    """
    if not text:
        raise _refused("TF_CONFIG is not set")
    try:
        values = json.loads(text)
        jobs, task = values["cluster"], values["task"]
        chiefs, workers = jobs.get("chief", []), jobs.get("worker", [])
        places = [("chief", n) for n in range(len(chiefs))]
        places += [("worker", n) for n in range(len(workers))]
        index = places.index((task["type"], int(task["index"])))
        cluster = Cluster((*chiefs, *workers), index)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise _refused(f"TF_CONFIG cannot be used ({reason})") from None
    _check_addresses(cluster.addresses)
    return cluster


def _check_addresses(addresses):
    for address in addresses:
        if not re.fullmatch(r"[^\s/]+:\d+", str(address)):
            raise _refused(f"TF_CONFIG has {address!r}, not a host and a port")
    if len(addresses) < 2:
        raise _refused("TF_CONFIG names one worker alone")
    if len(set(addresses)) < len(addresses):
        raise _refused("TF_CONFIG has an address twice")


def _refused(what):
    return WorkerError(
        f"{what}: --strategy=multi_worker takes the addresses of two workers "
        f"or more, such as TF_CONFIG='{_EXAMPLE}'; on one machine, "
        "--strategy=mirrored uses all its GPUs"
    )


# === The start ===


def connect() -> tf.distribute.MultiWorkerMirroredStrategy:
    """Waits for all workers; returns their strategy.

    Call it before anything of TensorFlow has run in the process.

    Raises:
        WorkerError: `TF_CONFIG` cannot be used, or this worker's port.
    """
    cluster = read_cluster(os.environ.get("TF_CONFIG"))
    # Said now, since after the wait nothing can be.
    print(
        f"{cluster.describe(cluster.index)} waits for {cluster.others()}, "
        f"{START_SECONDS} s at most",
        file=sys.stderr,
        flush=True,
    )
    _watch(cluster)
    try:
        # TensorFlow tells the workers other than the chief before that.
        with _ending_after(START_SECONDS + 30):
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise WorkerError(
            f"{cluster.describe(cluster.index)} cannot join the others "
            f"({reason}): check that its port is free, and that all workers "
            "have the same TF_CONFIG but for the index"
        ) from None


def _watch(cluster):
    """Has TensorFlow notice a silent worker after `SILENT_SECONDS`.

    As the strategy would set it, which offers no choice of the time
    (TensorFlow 2.21).
    """
    jobs = json.loads(os.environ["TF_CONFIG"])["cluster"]
    leader = "chief" if jobs.get("chief") else "worker"
    context.context().configure_coordination_service(
        "standalone",
        service_leader=f"/job:{leader}/replica:0/task:0",
        cluster_register_timeout_in_ms=START_SECONDS * 1000,
        heartbeat_timeout_in_ms=SILENT_SECONDS * 1000,
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name=n, num_tasks=len(a))
            for n, a in jobs.items()
        ],
    )


@contextlib.contextmanager
def _ending_after(seconds):
    """Ends the process with status 1 if this block takes longer.

    TensorFlow's chief would wait for ever, and without letting any thread of
    Python run (2.21); this one is not of Python.
    """
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


# === What they tell each other ===


class Workers:
    """The processes of a strategy: this one alone, or several.

    All must call the same methods in the same order, since each waits for the
    others. One process alone waits for nobody.

    Attributes:
        count: how many there are.
        index: this one's number.
        is_chief: whether it is the first.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.cluster = Cluster(("this process",), 0)
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            self.cluster = read_cluster(os.environ.get("TF_CONFIG"))
        self.count = len(self.cluster.addresses)
        self.index = self.cluster.index
        self.is_chief = self.index == 0

    def sum(self, values) -> np.ndarray:
        """Returns the sum of an array over all workers."""
        values = np.asarray(values)
        if self.count == 1:
            return values
        return self.strategy.reduce("SUM", tf.constant(values), None).numpy()

    def exchange(self, text: str) -> list[str]:
        """Tells the others a text; returns those of all, in their order."""
        content = np.frombuffer(text.encode(), np.uint8)
        sizes = np.zeros(self.count, np.int64)
        sizes[self.index] = len(content)
        sizes = self.sum(sizes)
        rows = np.zeros((self.count, sizes.max() + 1), np.int64)
        rows[self.index, : len(content)] = content
        rows = self.sum(rows).astype(np.uint8)
        pairs = zip(rows, sizes, strict=True)
        return [row[:size].tobytes().decode() for row, size in pairs]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What one worker cannot do in this block ends all of them.

        Raises:
            WorkerError: another one failed; its sentence is in the text.
        """
        failure = None
        try:
            yield
        except (UserError, OSError) as error:
            failure = error
        told = self.exchange("" if failure is None else f"{failure}.")
        if failure is not None:
            raise failure
        for index, sentence in enumerate(told):
            if sentence:
                who = self.cluster.describe(index)
                raise WorkerError(f"{who} stopped: {sentence.rstrip('.')}")

    def check_same(self, config: Config) -> None:
        """Raises `WorkerError` unless all have the same configuration."""
        first, *others = map(Config.from_json, self.exchange(config.to_json()))
        for index, other in enumerate(others, start=1):
            if changed := differences(first, other):
                more = ["..."] if len(changed) > _NAMED else []
                changed = "; ".join([*changed[:_NAMED], *more])
                raise WorkerError(
                    f"{self.cluster.describe(index)} has another configuration "
                    f"or other images than worker 0 ({changed}): "
                    "start all workers by the same command"
                )

    def share(self, variables) -> None:
        """Gives the chief's values of variables to all workers."""
        if self.count == 1:
            return
        for variable in variables:
            value = variable.numpy()
            if not self.is_chief:
                value = np.zeros_like(value)
            variable.assign(self.sum(value))

    def agree(self, status: int) -> int:
        """Returns the exit status with which all stop, or 0 for none.

        Args:
            status: this worker's, 130 or 143 after a signal.
        """
        if self.count == 1:
            return status
        told = self.sum(np.array([status == 130, status == 143], np.int64))
        return 143 if told[1] else 130 if told[0] else 0

    @contextlib.contextmanager
    def losing_none(self) -> Iterator[None]:
        """Says in one sentence that another worker was lost in this block.

        Raises:
            WorkerError: instead of what TensorFlow raises.
        """
        try:
            yield
        except tf.errors.OpError as error:
            lost = isinstance(error, _LOST) or _ABORTED in error.message
            if self.count == 1 or not lost:
                raise
            raise WorkerError(
                f"{self.cluster.others()} was lost or has ended: start all "
                "workers again by the same commands, which go on from the "
                f"newest checkpoint (TensorFlow: {type(error).__name__})"
            ) from None


class SharedFolder(CheckpointFolder):
    """The chief's checkpoints, as all workers have them.

    Args:
        folder, keep: as of `CheckpointFolder`; only the chief's are used.
        workers: `Workers`.
    """

    def __init__(self, folder, keep: int, workers: Workers):
        super().__init__(folder, keep)
        self.workers = workers
        self.writable = workers.is_chief

    def restore(self, gan) -> bool:
        """Loads the chief's newest checkpoint, if any, at all workers."""
        with self.workers.together():
            found = self.workers.is_chief and super().restore(gan)
        if found := bool(self.workers.sum(np.int64(found))):
            self.workers.share(state(gan).values())
        return found
