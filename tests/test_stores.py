"""Arrays and TFRecords as stores of images."""

import numpy as np
import pytest

from transgan_tf.stores import ArrayStore
from transgan_tf.stores import DataError
from transgan_tf.stores import from_array


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((2, 4, 4, 3), "float32"), "must be uint8, got float32"),
        (np.zeros((4, 4, 3), np.uint8), "got (4, 4, 3)"),
        (np.zeros((2, 4, 5, 3), np.uint8), "got (2, 4, 5, 3)"),
        (np.zeros((2, 4, 4, 4), np.uint8), "1 or 3 channels"),
        (np.zeros((0, 4, 4, 3), np.uint8), "at least one image"),
    ],
)
def test_arrays_that_are_refused(images, text):
    for function in (from_array, ArrayStore):
        with pytest.raises(DataError) as error:
            function(images)
        assert text in str(error.value)
