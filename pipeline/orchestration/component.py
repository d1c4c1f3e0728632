"""What a component and its artifacts are, for all who make or run them.

The terms are TFX's: a component has inputs and outputs, which are artifacts,
folders of `pipeline_root/<Component>/<output>/<execution>/`, and parameters.
An execution is one run of its function. This module imports neither
TensorFlow nor Beam.
"""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from transgan_tf.checked import UserError

# Properties of artifacts, see `Artifact`.
HOLDS_WITH, TRANSIENT = "holds_with", "transient"


class ComponentError(UserError):
    """Why a component cannot do its work, in one sentence for users."""


@dataclass(frozen=True)
class Artifact:
    """A finished output of an execution.

    Attributes:
        path: its folder.
        type: such as `"Examples"`.
        fingerprint: SHA-256 over names and contents of its files.
        properties: plain data about it, such as `{"blessed": 1}`. `HOLDS_WITH`
            names a path elsewhere without which it does not hold any more.
            `TRANSIENT` is 1 if it might come out otherwise the next time: later
            runs do not take it from the cache.
    """

    path: Path
    type: str
    fingerprint: str
    properties: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Channel:
    """An input: an output of a component upstream, of the same run.

    Attributes:
        component, output: their names, such as `"Trainer"`, `"model"`.
    """

    component: str
    output: str


@dataclass(frozen=True)
class Latest:
    """An input from an earlier run: the newest artifact that was approved.

    In runs of the same dataset. Never the one that is being judged, so that the
    same run again has the same input. `None` where there is no other.

    Attributes:
        channel: the kind of artifact that is wanted, such as the output `model`
            of `Trainer`; of the executions of this run, what it names is what
            must not be taken.
        approval: where its approval is told: an output of a component that had
            the artifact as an input.
        condition: a property of that approval that must be 1, such as
            `"blessed"`.
    """

    channel: Channel
    approval: Channel
    condition: str


@dataclass(frozen=True)
class Component:
    """One node of a pipeline.

    Attributes:
        name: such as `"Trainer"`.
        function: where its body is, as `"module:function"`. It is called with
            keywords: each input as an `Artifact` (or None), each output as the
            `Path` of its folder, each parameter and setting as its value. It
            returns the outputs' properties by output, or None. Whatever it
            prints is the component's log. A `UserError` fails the run with its
            sentence.
        inputs: by keyword.
        outputs: their artifact types by keyword.
        parameters: plain data on which the outputs depend.
        settings: plain data on which they do not, such as the number of
            devices: another value does not make it run again.
        resumable: outputs whose folder is kept when an execution fails or is
            killed; the next one goes on in it. Others are emptied first.
        growing: patterns of files in the outputs, such as `"*/log.txt"`, which
            others add to later: longer or new ones are no damage.
        standing: for outputs that reach out of the pipeline's root, where a
            function is, as `"module:function"`, that is asked before an
            execution is taken from the cache. It is called with the execution's
            inputs and outputs, artifacts by keyword, and returns why it does
            not hold any more, or None.
    """

    name: str
    function: str
    inputs: Mapping[str, Channel | Latest]
    outputs: Mapping[str, str]
    parameters: Mapping = field(default_factory=dict)
    settings: Mapping = field(default_factory=dict)
    resumable: tuple[str, ...] = ()
    growing: tuple[str, ...] = ()
    standing: str | None = None

    def load(self) -> Callable:
        """Imports and returns the function."""
        return load(self.function)


def load(function: str) -> Callable:
    """Imports and returns what is at `"module:function"`."""
    import importlib

    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)
