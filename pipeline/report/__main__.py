"""Makes a run's report again: `python -m pipeline.report`."""

import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.extras import told_if_missing
from transgan_tf import cli


@dataclass(frozen=True)
class Arguments:
    """Write the HTML report of a run of the pipeline.

    python -m pipeline.report --pipeline_root=pipeline_root

    It is the file reports/RUN/index.html in that folder.
    """

    pipeline_root: Path
    """Folder that python -m pipeline.run has written."""
    run: int | None = None
    """Number of the run; the newest by default."""


@told_if_missing()
def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    from pipeline.report.gather import newest_run
    from pipeline.report.page import write_report

    run = arguments.run
    if run is None:
        run = newest_run(arguments.pipeline_root)
    print(write_report(arguments.pipeline_root, run))
    return cli.DONE


def main(argv=None) -> int:
    command = "python -m pipeline.report"
    return cli.run(Arguments, act, command, argv, needs_tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
