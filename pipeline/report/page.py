"""Puts a report together and writes it as one file."""

from functools import cache
from pathlib import Path

from pipeline.report import formats
from pipeline.report import lineage
from pipeline.report import sections
from pipeline.report.gather import read_story
from pipeline.report.training import training
from transgan_tf.version import __version__


def write_report(pipeline_root: Path, run_id: int) -> Path:
    """Writes the report of a run, finished or not, over an older one.

    Args:
        pipeline_root: folder of the pipeline.
        run_id: number of the run.

    Returns:
        The file `pipeline_root/reports/<run>/index.html`: all in one, without
        scripts and without addresses of other machines.

    Raises:
        UserError: if there is no such run.
    """
    story = read_story(pipeline_root, run_id)
    page = story.root / "reports" / str(run_id) / "index.html"
    text = render(story, page)
    page.parent.mkdir(parents=True, exist_ok=True)
    temporary = page.with_name(f".{page.name}.tmp")
    # A file's name may hold bytes that are no text.
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    temporary.replace(page)
    return page


def render(story, page: Path) -> str:
    """Returns the report's HTML; `page` is the file that it is for."""
    parts = {
        "run": sections.overview(story),
        "failure": sections.failure(story, page),
        "components": sections.components(story, page),
        "data": sections.data(story),
        "anomalies": sections.anomalies(story),
        "training": training(story),
        "evaluation": sections.evaluation(story),
        "blessings": sections.blessings(story),
        "push": sections.push(story),
        "lineage": lineage.lineage(story),
        "diagram": lineage.diagram(story),
    }
    template = _environment().get_template("index.html")
    return template.render(parts, version=__version__)


@cache
def _environment():
    """Returns the templates; whatever a user wrote is escaped in them."""
    from jinja2 import Environment
    from jinja2 import PackageLoader
    from jinja2 import StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = formats.number
    return environment
