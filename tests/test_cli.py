"""How the command lines start TensorFlow."""

import os
import platform
import subprocess
import sys

import pytest

START = """
from transgan_tf import cli
cli.import_tensorflow_quietly()
from tensorflow.python.framework import test_util
print(test_util.IsMklEnabled())
"""


@pytest.mark.parametrize(
    ("said", "enabled"), [(None, "True"), ("1", "True"), ("0", "False")]
)
def test_onednn_multiplies_unless_the_user_says_no(said, enabled):
    """Also on processors on which TensorFlow itself would leave it off."""
    if platform.machine() not in ("x86_64", "AMD64") and said is None:
        enabled = "False"
    name = "TF_ENABLE_ONEDNN_OPTS"
    environment = {k: v for k, v in os.environ.items() if k != name}
    done = subprocess.run(
        [sys.executable, "-c", START],
        env=environment | ({} if said is None else {name: said}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (f"{enabled}\n", "")


def test_float32_is_not_tf32():
    code = """
from transgan_tf import cli
cli.import_tensorflow_quietly()
import tensorflow as tf
print(tf.config.experimental.tensor_float_32_execution_enabled())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
