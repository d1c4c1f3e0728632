"""Set before any test imports TensorFlow or Keras."""

import gc
import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"


@pytest.fixture
def freed_graphs():
    """Collects a test's graphs, whose cycles would fill the memory."""
    yield
    gc.collect()
