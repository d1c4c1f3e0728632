"""The report of a pipeline's run: one HTML file, made from what is stored.

Everything in it comes from the records and the artifacts' files, so it can be
made again at any time; `python -m pipeline.report` does that.
"""

from pipeline.report.page import write_report

__all__ = ["write_report"]
