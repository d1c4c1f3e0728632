"""README's presets are the presets; what the pages name is there."""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from transgan_tf import cli
from transgan_tf.estimate import discriminator_parameters
from transgan_tf.estimate import generator_parameters
from transgan_tf.presets import get_preset
from transgan_tf.presets import preset_names

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("docs/*.md"))]
# Of a line, also of several that a page has wrapped.
COMMAND = re.compile(
    r"python\s+-m\s+((?:transgan_tf|pipeline|serving)\b.*)", re.DOTALL
)


def row(name):
    preset = get_preset(name)
    config = preset.config
    size = f"{preset.image_size} px"
    generator = f"{generator_parameters(config.generator):,}"
    judge = f"{discriminator_parameters(config.discriminator):,}"
    paper = "none" if preset.paper_fid is None else f"{preset.paper_fid:.2f}"
    cells = (f"`{name}`", size, f"{generator} + {judge}", paper, preset.our_fid)
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_as_readme_says(name):
    assert row(name) in README.read_text().splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#]+)|src=\"([^\"]+)\"", text)
    for link in (one or other for one, other in links):
        if "://" not in link:
            assert (page.parent / link).is_file(), link


def test_every_page_is_listed():
    listed = set(re.findall(r"\]\((docs/\w+\.md)\)", README.read_text()))
    assert listed == {f"docs/{page.name}" for page in PAGES[1:]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    text = re.sub(r"\s+", " ", page.read_text())
    commands = set(
        re.findall(r"python -m ((?:transgan_tf|pipeline|serving)[\w.]+)", text)
    )
    if page == README:
        assert {"transgan_tf.train", "pipeline.run"} <= commands
    for command in commands:
        name = command.rstrip(".")
        assert importlib.util.find_spec(name), name


def shown_commands(page):
    """Returns a page's command lines, each as its words after `python -m`."""
    text = page.read_text()
    fences = re.compile(r"^ *```\w*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    blocks = [*fences.findall(text), *re.findall(r"^ {4}python.*", text, re.M)]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`([^`]+)`", fences.sub("", text))
    for line in lines:
        if found := COMMAND.search(line):
            yield shlex.split(found[1].partition(" | ")[0], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page, monkeypatch):
    parsed = []
    monkeypatch.setattr(cli, "answer", parsed.append)
    # The others are a name alone, or are shown in part.
    commands = [
        words
        for words in shown_commands(page)
        if words[1:] and "..." not in words
    ]
    for name, *words in commands:
        command = importlib.import_module(name)
        if not hasattr(command, "main"):
            command = importlib.import_module(f"{name}.__main__")
        # Pages say N where a number stands.
        command.main([re.sub(r"=N$", "=3", word) for word in words])
    assert len(parsed) == len(commands)
