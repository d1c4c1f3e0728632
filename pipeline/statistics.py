"""What a dataset's images are like: sums of whole numbers, in any order."""

import math
from collections import Counter
from dataclasses import dataclass
from dataclasses import field

import numpy as np

# Width in pixels of a bin of the sizes before cropping.
SIZE_BIN = 64

_VALUES = np.arange(256, dtype=np.int64)


@dataclass
class Statistics:
    """Sums over images; two of them add up to that of all images.

    Attributes:
        count: number of images.
        pixels: number of values of one channel.
        sums: of each channel's values, 0 to 255.
        squares: of each channel's squared values.
        shorter_sides: number of images by `shorter side // SIZE_BIN` before
            they were made to fit.
        labels: number of images by label, None for those without.
    """

    count: int = 0
    pixels: int = 0
    sums: list[int] = field(default_factory=list)
    squares: list[int] = field(default_factory=list)
    shorter_sides: Counter = field(default_factory=Counter)
    labels: Counter = field(default_factory=Counter)

    def add_image(self, histogram, label=None, source_size=None) -> None:
        """Adds an image by its `(channels, 256)` histogram."""
        sides = Counter()
        if source_size is not None:
            sides[min(source_size) // SIZE_BIN] += 1
        sums = [int(s) for s in histogram @ _VALUES]
        squares = [int(s) for s in histogram @ _VALUES**2]
        pixels = int(histogram[0].sum())
        labels = Counter({label: 1})
        self.add(Statistics(1, pixels, sums, squares, sides, labels))

    def add(self, other: "Statistics") -> None:
        self.count += other.count
        self.pixels += other.pixels
        self.sums = _added(self.sums, other.sums)
        self.squares = _added(self.squares, other.squares)
        self.shorter_sides += other.shorter_sides
        self.labels += other.labels

    def channels(self) -> list[dict]:
        """Returns mean and standard deviation of each channel, 0 to 255."""
        rows = []
        for total, square in zip(self.sums, self.squares, strict=True):
            # In whole numbers up to the last step, so that it is exact.
            variance = square * self.pixels - total**2
            deviation = math.sqrt(variance) / self.pixels
            rows.append({"mean": total / self.pixels, "deviation": deviation})
        return rows

    def shorter_side_bins(self) -> dict[str, int]:
        """Returns numbers of images by a text such as `"256-319"`."""
        return {
            f"{b * SIZE_BIN}-{(b + 1) * SIZE_BIN - 1}": self.shorter_sides[b]
            for b in sorted(self.shorter_sides)
        }

    def label_counts(self, classes) -> dict[str, int]:
        """Returns numbers of images by class, all classes named."""
        counts = {name: self.labels[i] for i, name in enumerate(classes)}
        if self.labels[None]:
            counts["no label"] = self.labels[None]
        return counts


def _added(one, other):
    if not one or not other:
        return one or other
    return [a + b for a, b in zip(one, other, strict=True)]
