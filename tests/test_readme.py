"""README's table of presets says what the presets say."""

from pathlib import Path

import pytest

from transgan_tf.estimate import discriminator_parameters
from transgan_tf.estimate import generator_parameters
from transgan_tf.presets import get_preset
from transgan_tf.presets import preset_names

README = Path(__file__).parents[1] / "README.md"


def row(name):
    preset = get_preset(name)
    config = preset.config
    size = f"{preset.image_size} px"
    generator = f"{generator_parameters(config.generator):,}"
    judge = f"{discriminator_parameters(config.discriminator):,}"
    paper = "none" if preset.paper_fid is None else f"{preset.paper_fid:.2f}"
    cells = (f"`{name}`", size, f"{generator} + {judge}", paper, preset.our_fid)
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_as_readme_says(name):
    assert row(name) in README.read_text().splitlines()
