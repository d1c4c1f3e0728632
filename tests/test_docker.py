"""The images, as far as they can be held without Docker.

The slow test runs what the Dockerfile runs, in its order, in a folder.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.dockerfile import ROOT
from tests.dockerfile import Builder
from tests.dockerfile import copied
from tests.dockerfile import read_stages

STAGES = read_stages()
TARGETS = ("serving", "pipeline", "train")
SETUP = (ROOT / "setup.py").read_text()
SCRIPT = "container/install.sh"


def pin(package):
    return re.search(rf'"{package}==([\d.]+)"', SETUP)[1]


def lineage(name):
    """Yields a stage and the stages below it."""
    while name in STAGES:
        yield STAGES[name]
        name = STAGES[name].base


def test_the_targets_are_there():
    assert set(TARGETS) <= set(STAGES)
    assert list(STAGES)[-1] == "train", "what a plain `docker build` builds"


def test_each_run_calls_the_script_with_a_step_that_it_has():
    script = (ROOT / SCRIPT).read_text()
    steps = set(re.findall(r"^(\w+)\(\)", script, re.MULTILINE))
    calls = [v for s in STAGES.values() for v in s.values("RUN")]
    matches = [
        re.match(rf"bash (?:/build/)?{SCRIPT} (\w+)", call) for call in calls
    ]
    assert all(matches), calls
    assert {match[1] for match in matches} == steps
    subprocess.run(["bash", "-n", ROOT / SCRIPT], check=True)


@pytest.mark.parametrize("target", TARGETS)
def test_no_image_runs_as_root(target):
    users = [stage.values("USER") for stage in lineage(target)]
    # The last one of the topmost stage that says so.
    assert next(filter(None, users))[-1] in ("transgan", "1000:1000")


@pytest.mark.parametrize("target", ["pipeline", "train"])
def test_the_environment_is_on_the_path_and_folders_are_the_users(target):
    (user,) = (v for s in lineage(target) for v in s.values("RUN"))
    assert " user /etc 1000 " in user
    variables = " ".join(v for s in lineage(target) for v in s.values("ENV"))
    assert "PATH=/opt/venv/bin:$PATH" in variables
    (folder,) = (v for s in lineage(target) for v in s.values("WORKDIR"))
    assert folder in user.split()


def test_versions_are_those_that_were_tested():
    images = {s.base for s in STAGES.values() if s.base not in STAGES}
    origins = {
        copied(value)[0] for s in STAGES.values() for value in s.values("COPY")
    }
    images |= {o for o in origins if o is not None and o not in STAGES}
    python = next(i for i in images if i.startswith("python:"))
    minor = re.match(r"python:(3\.\d+)\.\d+-slim-", python)[1]
    assert images == {
        python,
        f"apache/beam_python{minor}_sdk:{pin('apache-beam')}",
        f"tensorflow/serving:{pin('tensorflow')}",
    }
    assert f"Python {minor}" in (ROOT / "README.md").read_text()
    assert f"python{minor}" in (ROOT / "Makefile").read_text()
    assert f'python_requires=">={minor},' in SETUP


def test_what_is_copied_is_in_git_and_reaches_the_builder():
    sources = {
        source
        for stage in STAGES.values()
        for value in stage.values("COPY")
        for source in copied(value)[1]
        if copied(value)[0] is None
    }
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for source in sources:
        assert f"!{source.split('/')[0]}" in ignored
        git = ["git", "ls-files", "--error-unmatch", source]
        subprocess.run(git, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_dependencies_come_before_the_code():
    for name in ("build-pipeline", "build-train"):
        steps = [
            ("RUN", v) if i == "RUN" else ("COPY", copied(v)[1][0])
            for stage in reversed(list(lineage(name)))
            for i, v in stage.instructions
            if i in ("RUN", "COPY")
        ]
        last = max(n for n, (_, v) in enumerate(steps) if " dependencies " in v)
        code = [n for n, (_, v) in enumerate(steps) if v == "transgan_tf"]
        assert last < code[0]


def test_beams_workers_start_as_beam_documents():
    pipeline = STAGES["pipeline"]
    (entry,) = pipeline.values("ENTRYPOINT")
    assert json.loads(entry) == ["/opt/apache/beam/boot"]
    beam = f"apache/beam_python3.11_sdk:{pin('apache-beam')}"
    folder = "/opt/apache/beam"
    assert f"--from={beam} {folder} {folder}" in pipeline.values("COPY")
    # Since Beam 2.44 workers leave a virtual environment otherwise.
    assert "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1" in pipeline.values("ENV")


def test_the_user_owns_its_folders(tmp_path):
    builder = Builder(tmp_path)
    builder.build("user")
    assert builder.folder == tmp_path / "workspace"
    for name in ("home/transgan", "workspace/runs", "workspace/models"):
        assert (tmp_path / name).is_dir()
    entry = (tmp_path / "etc/passwd").read_text().split(":")
    assert entry[0] == "transgan"
    assert int(entry[2]) == (tmp_path / "workspace").stat().st_uid
    assert Path(entry[5]) == tmp_path / "home/transgan"


# === Built ===

LOOK = {
    "train": "import transgan_tf.train, sys\n"
    "from importlib.util import find_spec\n"
    "assert find_spec('apache_beam') is find_spec('kfp') is None",
    "pipeline": "import apache_beam, kfp.dsl.executor_main, transgan_tf.train\n"
    "import pipeline.preprocess, serving.export, pipeline.kubeflow_steps",
}


@pytest.mark.slow
@pytest.mark.parametrize("target", LOOK)
def test_the_steps_make_an_environment_that_works(target, tmp_path):
    builder = Builder(tmp_path)
    try:
        builder.build(target)
        check_environment(builder, target)
    finally:
        shutil.rmtree(tmp_path / "opt", ignore_errors=True)


def check_environment(builder, target):
    # Modules of this checkout must not stand in for those of the image.
    builder.environment.pop("PYTHONPATH", None)
    python = shutil.which("python", path=builder.environment["PATH"])
    assert Path(python) == builder.root / "opt/venv/bin/python"
    code = f"{LOOK[target]}\nimport transgan_tf; print(transgan_tf.__file__)"
    last = builder.run(["python", "-c", code]).splitlines()[-1]
    assert Path(last).is_relative_to(builder.root / "opt/venv")
    if target == "train":
        (entry,) = STAGES["train"].values("ENTRYPOINT")
        flags = ["--dataset=mnist", "--dry_run"]
        printed = builder.run([*json.loads(entry), *flags])
        assert "parameters" in printed
