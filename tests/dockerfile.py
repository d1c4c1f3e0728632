"""Reads the Dockerfile, and builds a stage of it where no Docker is."""

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Stage:
    """A stage: its base image or stage, and `(instruction, value)` pairs."""

    name: str
    base: str
    instructions: tuple[tuple[str, str], ...]

    def values(self, instruction):
        return [v for name, v in self.instructions if name == instruction]


def read_stages():
    """Returns the Dockerfile's stages by name, in their order."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line]
    stages = {}
    for instruction, value in pairs:
        if instruction == "FROM":
            base, name = value.split(" AS ")
            stages[name] = Stage(name, base, ())
        else:
            old = stages[name]
            added = (*old.instructions, (instruction, value))
            stages[name] = Stage(name, old.base, added)
    return stages


def copied(value):
    """Returns the stage or image of a COPY, its sources and its target."""
    words = value.split()
    origin = None
    if words[0].startswith("--from="):
        origin = words.pop(0).removeprefix("--from=")
    return origin, words[:-1], words[-1]


class Builder:
    """Runs stages into a folder that stands for `/` of all of them.

    What one stage copies from another is there already, so only environments
    that a target does not need are not made. Images are not pulled: what comes
    from them is missing.

    Attributes:
        root: the folder.
        environment: the variables of the stage that was built last.
        folder: its working folder.
    """

    def __init__(self, root):
        self.root = root
        self.stages = read_stages()
        self.environment = dict(os.environ)
        self.folder = root
        (root / "etc").mkdir()

    def build(self, name):
        """Builds a stage after those that it needs."""
        stage = self.stages[name]
        for value in stage.values("COPY"):
            origin, _, _ = copied(value)
            if origin in self.stages:
                self.build(origin)
        self.environment = dict(os.environ)
        if stage.base in self.stages:
            self.build(stage.base)
        for instruction, value in stage.instructions:
            do = getattr(self, f"_{instruction.lower()}", None)
            if do is not None:
                do(value)

    def below(self, text):
        """Returns the text with absolute paths moved below the root."""
        return re.sub(r"(?<![^\s=:])/", f"{self.root}/", text)

    def _workdir(self, value):
        self.folder = Path(self.below(value))
        self.folder.mkdir(parents=True, exist_ok=True)

    def _env(self, value):
        for word in shlex.split(self.below(value)):
            key, _, text = word.partition("=")
            text = text.replace("$PATH", self.environment["PATH"])
            self.environment[key] = text

    def _copy(self, value):
        origin, sources, target = copied(value)
        if origin is not None:
            return
        for source in sources:
            place = self.folder / self.below(target)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, dirs_exist_ok=True)
                continue
            if target.endswith("/"):
                place /= Path(source).name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / source, place)

    def _run(self, value):
        # The user of the image is the one who runs the test.
        value = re.sub(r" 1000\b", f" {os.getuid()}", self.below(value))
        self.run(["bash", "-c", value])

    def run(self, command):
        """Runs a command as in the stage; returns what it printed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}"
        return done.stdout
