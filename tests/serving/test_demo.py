"""Drawing by a server that is started for it."""

import subprocess
import sys

import pytest
from PIL import Image

from serving import demo
from serving.local import ServerError
from serving.local import served
from tests.serving.tiny_versions import export_version


@pytest.mark.slow
def test_a_server_draws_and_is_gone(tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    export_version(folder, 1)
    output = tmp_path / "new" / "demo.png"
    flags = [f"--model_dir={folder}", f"--output={output}", "--num_images=4"]
    done = subprocess.run([sys.executable, "-m", "serving.demo", *flags])
    assert done.returncode == 0
    with Image.open(output) as grid:
        # Two rows of two images.
        assert grid.width == grid.height > 0


@pytest.mark.slow
def test_a_server_without_a_model_is_waited_for_no_longer(tmp_path):
    with pytest.raises(ServerError, match="within 0.5 seconds"):
        with served(tmp_path, seconds=0.5):
            pass


@pytest.mark.slow
def test_a_server_that_does_not_start(tmp_path):
    with pytest.raises(ServerError, match="ended before it had loaded"):
        with served(tmp_path / "none"):
            pass


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model_dir={0}"], "has no version: push one by"),
        (["--model_dir={0}/none"], "cannot be read"),
        (["--model_dir={0}", "--output=a.jpg"], "must name a .png"),
    ],
)
def test_mistakes_get_one_sentence(flags, sentence, tmp_path, capsys):
    assert demo.main([flag.format(tmp_path) for flag in flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
