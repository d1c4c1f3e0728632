"""The report of a run, read as a machine reads it; no browser."""

import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from pipeline.report import __main__ as command
from pipeline.report import charts
from pipeline.report import formats
from pipeline.report import write_report
from tests.pipeline_root import Root
from tests.pipeline_root import complete_validation
from tests.pipeline_root import evaluation
from tests.pipeline_root import statistics
from tests.pipeline_root import write_data
from tests.pipeline_root import write_first_run
from tests.pipeline_root import write_json
from tests.pipeline_root import write_second_run
from tests.pipeline_root import write_training

VOID = ("meta", "img", "br", "rect", "line", "circle", "path", "polygon")
CELLS = ("dt", "dd", "td", "th")
HOSTILE = "<img src=x onerror=alert(1)>&amp;\"'</style></pre><script>"


class Page(HTMLParser):
    """The elements of a page, and the text inside those that have an id."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.elements, self.texts, self.open = [], {"": ""}, []
        self.feed(path.read_text())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag == "br":
            self.handle_data(" ")
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append((tag, attributes.get("id")))
            self.texts.setdefault(attributes.get("id"), "")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag
        if tag in CELLS:
            self.handle_data(" ")

    def handle_data(self, data):
        for name in {"", *(name for _, name in self.open if name)}:
            self.texts[name] += data

    def text(self, name=""):
        """Returns an element's text, spaces made single."""
        return " ".join(self.texts[name].split())

    def attributes(self, tag, name):
        return [a[name] for t, a in self.elements if t == tag and name in a]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two runs; the second has the first one's data and baseline."""
    root = Root(tmp_path_factory.mktemp("root"))
    write_second_run(root, write_first_run(root))
    return root


@pytest.fixture(scope="module")
def first(root):
    return Page(write_report(root.path, 1))


@pytest.fixture(scope="module")
def second(root):
    return Page(write_report(root.path, 2))


def test_it_is_one_file_that_asks_for_nothing(root, first):
    assert first.path == root.path / "reports/1/index.html"
    assert [p.name for p in first.path.parent.iterdir()] == ["index.html"]
    tags = {tag for tag, _ in first.elements}
    assert not tags & {"script", "link", "iframe", "object"}
    sources = first.attributes("img", "src")
    # Evaluator's, the first and the newest of Trainer's, the dataset's.
    assert len(sources) == 4
    assert all(s.startswith("data:image/png;base64,") for s in sources)
    assert "url(" not in first.path.read_text()
    assert "default-src 'none'" in first.attributes("meta", "content")[-1]


def test_its_links_are_the_logs(first):
    links = first.attributes("a", "href")
    assert len(links) == 7
    logs = [(first.path.parent / unquote(link)).resolve() for link in links]
    assert logs[3].parts[-3:] == ("logs", "Trainer", "4.log")
    assert all(log.is_file() for log in logs)


def test_it_tells_the_outcome_and_the_run(first):
    assert first.text("outcome") == "Pushed version 7 to models/transgan/7"
    assert "2026-01-31 14:00:00 UTC" in first.text()
    assert "Took 2 h 0 min" in first.text()
    assert first.text("options").endswith("max_fid 50 preset none steps 4000")


def test_components_have_bars_by_their_time(first, second):
    assert "complete 1 min 30 s log" in first.text("component-ExampleGen")
    assert "complete 10 min 30 s log" in first.text("component-Pusher")
    # Of 90 s to 630 s.
    widths = first.attributes("rect", "width")[:7]
    expected = ["14.29", "28.57", "42.86", "57.14", "71.43", "85.71", "100.0"]
    assert widths == expected
    text = second.text("component-StatisticsGen")
    assert "cached 3 min 0 s execution 2" in text
    assert "complete 12 min 0 s" in second.text("component-Trainer")


def test_data_are_counted(first):
    assert "28 × 28 pixels, grey" in first.text("data")
    row = "train 4,321 1.5 MB grey 33.25 78.5"
    assert row in first.text("splits")
    assert "validation 679 240 kB grey 33.25 78.5" in first.text("splits")
    assert "one 4,000 two 321" in first.text("data")
    quarantine = first.text("quarantine")
    assert "7 images are bad. By reason truncated 5 empty 2" in quarantine
    assert "11 of those that were kept repeat others" in quarantine
    assert "not wanted too small 13" in quarantine
    assert "0-63 4,000 64-127 1,000" in first.text("data")


def test_drift_and_schema_are_shown(first):
    assert "none found" in first.text("anomalies")
    assert "at most 0.25 each. channel 0 0.03125" in first.text("drift")
    assert "splits.train.min 1" in first.text("schema")


def test_the_best_fid_is_marked_and_told_with_its_protocol(first):
    text = first.text("fid")
    assert "best 12.5 at 48,000 images seen" in text
    assert "1,234 generated images against 4,321 real ones" in text
    assert "features: classifier" in text
    x = 56 + 0.75 * (448 - 56)
    assert str(x) in first.attributes("circle", "cx")


def test_samples_are_the_first_and_the_newest(first):
    text = first.text("samples")
    assert text.startswith("Before the first step")
    assert "After step 4,000" in text and "1,000" not in text


def test_the_gate_shows_bounds_measured_and_baseline(first, second):
    assert "fid value ≤ 50 12.5 passed" in first.text("thresholds")
    assert "blessed fid 12.5 is at most 50" in first.text("blessing-Evaluator")
    assert "fid 12.5 – is 6.206 too few images –" in first.text("scores")
    assert "1,234 generated images against 4,321 real" in first.text("gate")
    assert "no baseline" in first.text("gate")
    assert "3 signatures answered" in first.text("blessing-InfraValidator")
    text = second.text("thresholds")
    assert "fid value ≤ 10 12.5 not passed" in text
    assert "change, 12.25 of the baseline +5 % ≤ 12.86 12.5 passed" in text
    assert "fid 12.5 12.25" in second.text("scores")
    assert "blessed last, Trainer/model_run/4, scored" in second.text("gate")
    assert "not pushed the model was not blessed" in second.text("push")
    assert second.text("outcome").startswith("Nothing was pushed: the model")


def test_lineage_names_fingerprints_code_and_parameters(first, second):
    text = first.text("execution-4")
    assert "training.batch_size 8 training.steps 4000" in text
    assert "ExampleGen/examples/1 SHA-256 0165" in text
    assert "Trainer/model_run/4 SHA-256 046d" in text
    assert "c0de" * 16 in text
    text = second.text("execution-9")
    assert "baseline_run, ModelRun, of an earlier run" in text


def test_the_diagram_leads_each_artifact_to_its_readers(second):
    found = [a for tag, a in second.elements if tag in ("g", "polygon")]
    lanes = "".join("p" if "points" in a else "|" for a in found)
    # Lines of charts come first; then, the shortest lane first: model_run of
    # the earlier run has one reader, examples have three.
    readers = sorted(map(len, lanes.split("|")))
    assert readers[-2:] == [3, 3]
    assert sum(readers) == 13
    assert "earlier run, execution 4" in second.text("lineage")


def test_a_failed_run_tells_where_and_why(tmp_path):
    root = Root(tmp_path)
    root.start("digits", steps=9)
    made, number = write_data(root)
    made |= complete_validation(root, number)
    number = write_training(root, made)
    root.log("Trainer", number, "step 1/9\rstep 2/9\nlast words\n")
    root.store.stop(number, "failed", "memory ran out: set training.remat")
    root.finish("failed")
    page = Page(write_report(tmp_path, 1))
    failure = page.text("failure")
    assert "Trainer failed: memory ran out: set training.remat" in failure
    assert ".system/logs/Trainer/4.log" in failure
    assert failure.endswith("Trainer begins step 2/9 last words")
    assert page.text("outcome") == "Nothing was pushed: Trainer failed"
    assert "failed" in page.text("component-Trainer")
    assert page.text("component-Pusher") == "Pusher did not run – –"
    assert "Evaluator did not finish" in page.text("blessing-Evaluator")
    assert "best 12.5" in page.text("fid")


def test_a_killed_run_was_interrupted(tmp_path):
    root = Root(tmp_path)
    root.start("digits")
    number = root.begin("ExampleGen")
    root.finish("interrupted")
    page = Page(write_report(tmp_path, 1))
    assert root.store.execution(number).status == "running"
    assert "ExampleGen was interrupted" in page.text("failure")
    assert page.text("outcome").endswith("ExampleGen was interrupted")
    assert "no statistics" in page.text("data")
    assert "No model was trained" in page.text("training")


def test_a_run_without_executions_has_a_report(tmp_path):
    root = Root(tmp_path)
    root.start("digits")
    page = Page(write_report(tmp_path, 1))
    assert page.text("outcome").endswith("the run has not ended")
    assert page.text("component-Trainer") == "Trainer waits – –"
    assert "failure" not in page.texts


def test_a_run_that_was_to_end_early_says_where(tmp_path):
    root = Root(tmp_path)
    root.start("digits", until="ExampleGen")
    root.complete(root.begin("ExampleGen"), {"examples": ("Examples", {})})
    root.finish(summary="run 1: executed ExampleGen")
    page = Page(write_report(tmp_path, 1))
    assert page.text("outcome").endswith("the run ended after ExampleGen")
    assert page.text("component-Trainer") == "Trainer did not run – –"


def test_anomalies_that_stopped_the_run_are_shown(tmp_path):
    root = Root(tmp_path)
    root.start("digits")
    found = {"feature": "count", "kind": "too few", "description": "3 images"}
    _, number = write_data(root, found=[found])
    root.store.stop(number, "failed", "1 anomaly")
    root.finish("failed")
    page = Page(write_report(tmp_path, 1))
    assert "count too few 3 images" in page.text("anomalies")
    assert "no earlier images" in page.text("drift")


def write_hostile_run(path):
    """Writes a run whose every text is an attack."""
    root = Root(path)
    root.start(HOSTILE, **{HOSTILE: HOSTILE})
    made, number = write_data(
        root, HOSTILE.replace("/", "-"), [dict.fromkeys(("feature",), HOSTILE)]
    )
    folder = root.folder("StatisticsGen", "statistics", 2)
    hostile = statistics()
    hostile["splits"] = {HOSTILE: hostile["splits"]["train"]}
    hostile["splits"][HOSTILE]["labels"] = {HOSTILE: 1}
    hostile["quarantined_by"] = {HOSTILE: 2}
    write_json(folder / "statistics.json", hostile)
    made |= root.complete(number, {"blessing": (HOSTILE, {HOSTILE: HOSTILE})})
    made["examples_blessing"] = made["blessing"]
    number = write_training(root, made, HOSTILE.replace("/", "-"))
    made |= root.complete(number, {"model_run": (HOSTILE, {})})
    number = root.begin("Evaluator", {HOSTILE: HOSTILE})
    judged = evaluation(True, None)
    judged["metrics"] = {HOSTILE: HOSTILE}
    judged["thresholds"][0]["name"] = HOSTILE
    judged["protocol"] = {HOSTILE: HOSTILE, "features": HOSTILE}
    folder = root.folder("Evaluator", "evaluation", number)
    write_json(folder / "metrics.json", judged)
    root.log("Evaluator", number, HOSTILE)
    root.store.stop(number, "failed", HOSTILE)
    root.finish("failed", HOSTILE)
    return write_report(path, 1)


def test_hostile_texts_stay_texts(tmp_path):
    page = Page(write_hostile_run(tmp_path))
    tags = [tag for tag, _ in page.elements]
    assert "script" not in tags
    assert all(s.startswith("data:") for s in page.attributes("img", "src"))
    assert page.attributes("img", "onerror") == []
    for name in (
        "options",
        "failure",
        "splits",
        "quarantine",
        "anomalies",
        "thresholds",
        "scores",
        "execution-3",
        "execution-5",
    ):
        assert HOSTILE in page.text(name), name


def test_names_that_are_no_text_are_shown_escaped(tmp_path):
    root = Root(tmp_path)
    root.start("digits", source="photos/\udcff")
    page = Page(write_report(tmp_path, 1))
    assert "source photos/\\udcff" in page.text("options")


def test_torn_files_leave_their_section_empty(tmp_path):
    root = Root(tmp_path)
    write_first_run(root)
    for name in (
        "StatisticsGen/statistics/2/statistics.json",
        "Evaluator/evaluation/5/metrics.json",
        "Trainer/model_run/4/digits/samples/step-000004000.png",
    ):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:99])
    curves = tmp_path / "Trainer/model_run/4/digits/metrics.jsonl"
    curves.write_text(curves.read_text()[:-5])
    page = Page(write_report(tmp_path, 1))
    assert "no statistics" in page.text("data")
    assert "was not evaluated" in page.text("gate")
    assert page.text("samples").startswith("Before the first step")
    assert "4,000" not in page.text("samples")
    assert "best 12.5" in page.text("fid")


def test_the_command_makes_the_newest_again(root, capsys):
    page = write_report(root.path, 2)
    page.write_text("")
    assert command.main([f"--pipeline_root={root.path}"]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert "run 2" in page.read_text()


@pytest.mark.parametrize("flag", ["--run=3", "--run=0"])
def test_a_run_that_is_not_there_is_told(root, capsys, flag):
    assert command.main([f"--pipeline_root={root.path}", flag]) == 1
    assert f"no run {flag[-1]}; it has 1, 2" in capsys.readouterr().err


def test_a_root_that_is_none_is_told(tmp_path, capsys):
    assert command.main([f"--pipeline_root={tmp_path}"]) == 1
    assert "--pipeline_root" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_built_package_has_the_templates(tmp_path):
    top = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "-d", tmp_path],
        cwd=top,
        check=True,
    )
    folder = Path("pipeline/report/templates")
    built = {path.name for path in (tmp_path / folder).iterdir()}
    assert {"index.html", "style.css"} <= built
    assert built == {path.name for path in (top / folder).iterdir()}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345, "12,345"),
        (12.3456, "12.35"),
        (1131.9609, "1,132"),
        (0.0456789, "0.04568"),
        (0.000012345, "1.23e-05"),
        (12.0, "12"),
        (0.0, "0"),
        (1000.0, "1,000"),
        (math.nan, "nan"),
        (None, "–"),
        ("a text", "a text"),
    ],
)
def test_numbers_have_four_digits_that_count(value, text):
    assert formats.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7500, "2 h 5 min"),
        (None, "–"),
    ],
)
def test_times_are_readable(seconds, text):
    assert formats.duration(seconds) == text


def test_large_pictures_are_shrunk(tmp_path, monkeypatch):
    from tests.pipeline_root import write_grid

    write_grid(tmp_path / "a.png", 1100, 2200, seed=0)
    whole = formats.picture(tmp_path / "a.png")
    assert (whole["width"], whole["height"]) == (2200, 1100)
    monkeypatch.setattr(formats, "MOST_BYTES", 1000)
    small = formats.picture(tmp_path / "a.png")
    assert small["shrunk"] and len(small["source"]) < len(whole["source"])


def test_lines_go_where_the_values_are():
    series = [charts.Series("a", ((0, 1.0), (5, math.nan), (10, 3.0)))]
    chart = charts.line_chart("title", series, "x")
    # A gap at the value that is none; a twentieth of the range above, below.
    low, high = 204 - 190 * 0.1 / 2.2, 204 - 190 * 2.1 / 2.2
    assert chart["lines"][0]["path"] == f"M56.0 {low:.2f}M448.0 {high:.2f}"
    assert charts.line_chart("title", [charts.Series("a", ())], "x") is None


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (0.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (3.0, ["0", "1", "2", "3", "4", "5", "6"]),
        (-2.0, ["-4", "-3", "-2", "-1", "0"]),
    ],
)
def test_a_single_value_has_an_axis(value, labels):
    series = [charts.Series("a", ((value, value),))]
    chart = charts.line_chart("title", series, "x")
    assert [tick["label"] for tick in chart["x_ticks"]] == labels
    assert [tick["label"] for tick in chart["y_ticks"]] == labels


def test_a_logarithmic_axis_leaves_out_what_it_has_not():
    series = [charts.Series("a", ((0, 100.0), (1, 0.0), (2, 1.0)))]
    chart = charts.line_chart("title", series, "x", log=True)
    assert len(chart["lines"][0]["dots"]) == 2
    labels = [tick["label"] for tick in chart["y_ticks"]]
    assert labels == ["1", "2", "5", "10", "20", "50", "100"]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 7, [0, 1, 2, 3, 4, 5, 6, 7]),
        (-1.2, 4.3, [-1, 0, 1, 2, 3, 4]),
        (0, 64_000, [0, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000]),
    ],
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert charts.linear_ticks(low, high) == ticks


def test_many_points_are_averaged_in_groups():
    points, group = charts.thin((x, 2 * x) for x in range(601))
    assert group == 3 and len(points) == 201
    assert points[0] == (1, 2) and points[-1] == (600, 1200)


def test_histograms_add_up_neighbours_and_are_shares():
    chart = charts.histogram("title", {"grey": [1, 1, 0, 0] * 64, "none": []})
    (line,) = chart["lines"]
    # 64 bins of four values, each a 64th of all.
    assert line["path"].count("H") == 64
    heights = [part.split("H")[0] for part in line["path"].split("V")[1:]]
    assert heights == ["23.05"] * 64 + ["204.0"]
