"""The pipeline for Kubeflow: `python -m pipeline.kubeflow`.

The components are those of `pipeline.run`; see docs/kubeflow.md.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from pipeline.extras import told_if_missing
from pipeline.flags import PipelineFlags
from transgan_tf import cli
from transgan_tf.checked import ConfigError
from transgan_tf.checked import require

# As tyro and Beam's parser exit of themselves.
BAD_USAGE = 2
# On a volume, for steps that go on.
_WORK = ".transgan-tf"


@dataclass(frozen=True)
class Arguments(PipelineFlags):
    """Compile the pipeline for Kubeflow Pipelines or Vertex AI.

    python -m pipeline.kubeflow --dataset=mnist --volume=transgan:/volume
    --model_dir=/volume/models/transgan --output=pipeline.yaml

    Paths, but for that of the output, are those that the steps see. Flags that
    are not listed here are Beam's.
    """

    output: Path = Path("pipeline.yaml")
    """File to write."""
    image: str = "transgan-tf-pipeline"
    """The pipeline's image, as the cluster can pull it."""
    volume: str | None = None
    """Persistent volume claim that each step mounts, and where, such as
    transgan:/volume."""
    gpus: int = 0
    """Of the steps that train and score."""
    previous_statistics: str | None = None
    """URI of statistics to measure drift from; a run may name others."""
    baseline_run: str | None = None
    """URI of the run of a blessed model to compare with; a run may name
    another."""

    def check(self) -> None:
        """Raises `ConfigError` for flags that cannot be meant so."""
        super().check()
        if self.volume and not re.fullmatch(r"[a-z0-9.-]+:/\S+", self.volume):
            raise ConfigError(
                "--volume must be a claim and an absolute path, such as "
                f"transgan:/volume, got {self.volume!r}"
            )
        require(self.gpus >= 0, "--gpus", "must be at least 0", self.gpus)
        rule = "must be an absolute path, since the steps run elsewhere"
        absolute = self.model_dir.is_absolute()
        require(absolute, "--model_dir", rule, str(self.model_dir))

    def claim(self) -> tuple[str, str]:
        """Returns the volume's claim, and the path where it is mounted."""
        claim, _, path = self.volume.partition(":")
        return claim, path

    def work_dir(self) -> str:
        """Returns where steps keep what they need to go on, or nothing."""
        return f"{self.claim()[1]}/{_WORK}" if self.volume else ""


@told_if_missing()
def run(arguments: Arguments, flags: list[str]) -> int:
    """Does what the command line says; `flags` are Beam's."""
    from pipeline.components.graph import make_components

    components = make_components(arguments, flags)
    if flags:
        from pipeline.options import UnknownFlag
        from pipeline.options import beam_options

        try:
            beam_options(flags, Arguments)
        except UnknownFlag as error:
            print(f"error: {error}", file=sys.stderr)
            return BAD_USAGE
    from kfp import compiler

    from pipeline.kubeflow_graph import make_pipeline

    graph = make_pipeline(components, arguments)
    compiler.Compiler().compile(graph, str(arguments.output))
    print(f"written: {arguments.output}")
    return cli.DONE


def main(argv=None) -> int:
    arguments, flags = tyro.cli(
        Arguments,
        args=cli.split_flags(argv),
        prog="python -m pipeline.kubeflow",
        use_underscores=True,
        return_unknown_args=True,
    )
    return cli.answer(lambda: run(arguments, flags))


if __name__ == "__main__":
    sys.exit(main())
