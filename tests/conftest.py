"""Set before any test imports TensorFlow or Keras."""

import gc
import os
import shutil
import sys
import tempfile

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
# As the command lines do, with which tests compare bit for bit.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# They begin first: one core would still run them when the others are done.
LONGEST = {
    "test_resume.py",
    "test_training.py",
    "test_gan.py",
    "test_commands.py",
}


@pytest.fixture(autouse=True, scope="session")
def float32_is_not_tf32():
    """On a GPU, float32 as the commands have it."""
    # Tests that need TensorFlow have imported it by now.
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.config.experimental.enable_tensor_float_32_execution(False)


@pytest.fixture
def freed_graphs():
    """Collects a test's graphs, whose cycles would fill the memory."""
    yield
    gc.collect()


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """Returns the library's folder in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "transgan_tf"


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_configure(config):
    """Gives the tests a cache of their own, which their processes share."""
    if not hasattr(config, "workerinput"):
        config.test_cache = tempfile.mkdtemp(prefix="transgan-tf-tests-")
        os.environ["XDG_CACHE_HOME"] = config.test_cache


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(config.test_cache, ignore_errors=True)
