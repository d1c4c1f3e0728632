"""The report of a run as a person sees it: in a real headless browser."""

import numpy as np
import pytest
from PIL import Image

from pipeline.report import write_report
from tests import browser
from tests.pipeline_root import Root
from tests.pipeline_root import write_first_run
from tests.pipeline_root import write_second_run
from tests.test_report import HOSTILE
from tests.test_report import write_hostile_run

# What a reader sees, and whether anything is wider than the window.
SEEN = """
Promise.allSettled([...document.images].map(image => image.decode())).then(
  () => ({
    headings: [...document.querySelectorAll("h2")].map(h => h.innerText),
    images: [...document.images].map(i => [i.naturalWidth, i.naturalHeight]),
    shown: [...document.images].map(i => i.getBoundingClientRect().width > 50),
    outcome: document.querySelector("#outcome").innerText,
    fid: document.querySelector("#fid figcaption").innerText,
    best: getComputedStyle(document.querySelector(".best")).stroke,
    bars: [...document.querySelectorAll(".steps rect")].map(
      rect => Math.round(rect.getBoundingClientRect().width)),
    steps: document.querySelector(".steps").getBoundingClientRect().right,
    card: document.querySelector("section p").getBoundingClientRect().right,
    window: innerWidth,
    width: document.documentElement.scrollWidth,
    scripts: document.scripts.length,
  }))
"""
HEADINGS = [
    "Components",
    "Quality gate",
    "Training",
    "Data",
    "Anomalies and drift",
    "Lineage",
]


@pytest.fixture(scope="module")
def address():
    with browser.started() as address:
        yield address


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = Root(tmp_path_factory.mktemp("root"))
    write_second_run(root, write_first_run(root))
    return write_report(root.path, 2)


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_a_person_sees_the_report(address, report, tmp_path, width, dark):
    picture = tmp_path / "report.png"
    visit = browser.visit(
        address, report, SEEN, width=width, dark=dark, picture=picture
    )
    seen = visit.value
    assert visit.problems == []
    others = [r for r in visit.requests if not r.startswith("data:")]
    assert others == [report.as_uri()]
    assert seen["headings"] == HEADINGS
    assert seen["images"] == [[233, 231], [225, 223], [225, 223], [229, 227]]
    assert all(seen["shown"])
    assert seen["outcome"].startswith("Nothing was pushed")
    assert "best 12.5 at 48,000" in seen["fid"]
    assert seen["best"] == (
        "rgb(111, 214, 154)" if dark else "rgb(26, 127, 67)"
    )
    assert seen["window"] == width and seen["width"] <= width
    assert seen["steps"] <= seen["card"]
    check_picture(picture, width, dark)


def check_picture(picture, width, dark):
    """Checks a picture of the page: its size, and that it is not empty."""
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[1] == width and pixels.shape[0] > 2000
    assert (np.median(pixels) < 64) == dark
    # No stretch as high as a window is without anything to see.
    for top in range(0, pixels.shape[0] - 800, 800):
        assert pixels[top : top + 800].std() > 5


def test_bars_are_as_long_as_the_times(address, report):
    bars = browser.visit(address, report, SEEN).value["bars"]
    times = [1, 2, 3, 8, 9, 10, 11]
    assert bars == pytest.approx([bars[-1] * t / 11 for t in times], abs=1)
    assert bars[-1] > 200


def test_hostile_texts_are_read_and_do_nothing(address, tmp_path):
    page = write_hostile_run(tmp_path)
    script = "[document.querySelector('h1').innerText, document.title]"
    visit = browser.visit(address, page, script)
    heading, title = visit.value
    assert HOSTILE in heading and HOSTILE in title
    assert visit.problems == []
    assert all(r.startswith(("data:", "file:")) for r in visit.requests)


def test_what_is_wrong_with_a_page_is_seen(address, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<img src='data:image/png;base64,AAAA'><img src='http://127.0.0.1:9/'>"
        "<h2>A</h2><section><p class=steps id=outcome></p>"
        "<div id=fid><figcaption class=best></figcaption></div>"
        "<p style='width: 2000px'>wide</p>"
        "<script>console.log('said')</script>"
    )
    visit = browser.visit(address, page, SEEN)
    assert visit.value["headings"] == ["A"]
    assert visit.value["images"][0] == [0, 0]
    assert visit.value["width"] > visit.value["window"]
    assert visit.value["scripts"] == 1
    assert "http://127.0.0.1:9/" in visit.requests
    assert any("said" in problem for problem in visit.problems)


def test_without_a_browser_the_error_says_what_to_do(monkeypatch):
    command = ["sh", "-c", "echo libnss3.so is missing >&2"]
    monkeypatch.setattr(browser, "found_command", lambda _: (command, {}))
    with pytest.raises(browser.NoBrowser, match="(?s)apt-get.*libnss3"):
        with browser.started():
            pass
