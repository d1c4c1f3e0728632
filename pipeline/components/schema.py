"""What images must be, for ExampleValidator; from flags or a JSON file.

Imports neither TensorFlow nor Beam.
"""

import json
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

from transgan_tf.checked import Checked
from transgan_tf.checked import ConfigError
from transgan_tf.checked import from_dict
from transgan_tf.checked import require


@dataclass(frozen=True)
class Schema(Checked):
    """What a dataset must fulfil.

    Attributes:
        image_size: side of the images in pixels.
        channels: 1 for grey, 3 for colour.
        min_images: of the split `train`.
        classes: names that labels may have; None for any, and for none.
        max_quarantined: share of the source's images that were bad.
        min_deviation: the standard deviation of each channel's values, 0 to
            255, must be above it: 0 refuses images that are all of one colour.
        max_duplicates: share of images whose file has the bytes of another.
    """

    image_size: int
    channels: int
    min_images: int = 1
    classes: tuple[str, ...] | None = None
    max_quarantined: float = 1.0
    min_deviation: float = 0.0
    max_duplicates: float = 1.0

    prefix = "schema"

    def check(self):
        self.require_at_least(1, "image_size", "min_images")
        rule = "must be 1 (grey) or 3 (colour)"
        require(self.channels in (1, 3), "schema.channels", rule, self.channels)
        for name in ("max_quarantined", "max_duplicates"):
            share = getattr(self, name)
            rule = "must lie between 0 and 1"
            require(0 <= share <= 1, self.field(name), rule, share)
        inside, rule = 0 <= self.min_deviation < 128, "must lie in [0, 128)"
        require(inside, "schema.min_deviation", rule, self.min_deviation)

    def changed_by(self, path: Path | None) -> "Schema":
        """Returns this schema with the values of a JSON file.

        Raises:
            ConfigError: the file cannot be used; the text names it.
        """
        if path is None:
            return self
        try:
            values = json.loads(Path(path).read_text())
            rule = "must be an object of names and values"
            require(isinstance(values, dict), "the schema", rule, values)
            return from_dict(Schema, asdict(self) | values)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--schema {path} cannot be used ({error}): see docs/pipeline"
                ".md for its fields"
            ) from None
