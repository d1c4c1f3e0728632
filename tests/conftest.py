"""Set before any test imports TensorFlow or Keras."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import tensorflow as tf

# Optimizing a step's graph takes longer than the few steps of a test.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
