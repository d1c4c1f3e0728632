"""The paper's ablation as configurations, and its results as table and plot.

Rows are those of Table 3 of the paper (https://arxiv.org/abs/2102.07074): the
attention of the stages of high resolution, (A) to (D), and what is then added
to the grid, one part after the other. The last row is the one before it with
augmentation the other way, as in Table 2, which compares the transformer with
convolutional networks: a preset's networks and their ResNet, each without
augmentation and with it. This module imports no TensorFlow.
"""

import statistics
from dataclasses import replace
from pathlib import Path

from transgan_tf.checked import ConfigError
from transgan_tf.configs import Config
from transgan_tf.estimate import discriminator_parameters
from transgan_tf.estimate import generator_parameters
from transgan_tf.network_configs import ATTENTIONS
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import Stage
from transgan_tf.presets import get_preset
from transgan_tf.presets import preset_names

ROWS = {
    "standard": "(A) standard self-attention",
    "nystrom": "(B) Nyström self-attention",
    "axis": "(C) axis self-attention",
    "grid": "(D) grid self-attention",
    "multi_scale": "+ multi-scale discriminator",
    "token_scaling": "+ token scaling",
    "relative_position": "+ relative position encoding",
    "augmentation": "the same",
}
ARCHITECTURE_ROWS = {
    "transformer": "transformer",
    "transformer_augmented": "transformer",
    "resnet": "ResNet",
    "resnet_augmented": "ResNet",
}
# The rows of the paper's tables, by number.
TABLES = {2: ARCHITECTURE_ROWS, 3: ROWS}
# Of the rows that have augmentation where the base has none.
DIFF_AUGMENT = "translation,cutout,color"


def digits_config() -> Config:
    """Returns networks of the digits that have all that the rows differ in.

    The recipe is that of the `mnist` preset, `_slowed`. Attention is replaced
    above 7 px: in the generator's stages of 14 and 28 px, and in the first
    scale of the discriminator, 14 x 14 tokens.
    """
    mnist = get_preset("mnist").config
    replaced = {"attention_above": 7, "landmarks": 49}
    shared = {"channels": 1, "heads": 2, "mlp_ratio": 2, **replaced}
    generator = GeneratorConfig(
        stages=(
            Stage(7, 64, 2),
            Stage(14, 64, 1, window=7, upsample="bicubic"),
            Stage(28, 16, 1, window=7, upsample="pixel_shuffle"),
        ),
        latent_dim=64,
        output_activation="tanh",
        **shared,
    )
    discriminator = DiscriminatorConfig(
        stages=(Stage(14, 48, 1, window=7), Stage(7, 96, 1)),
        image_size=28,
        **shared,
    )
    recipe = _slowed(_shortened(mnist))
    return replace(recipe, generator=generator, discriminator=discriminator)


def _shortened(config):
    return replace(config, training=replace(config.training, steps=3000))


def _slowed(config):
    """Returns the digits' recipe at rates that suit all rows.

    Its own were chosen for transformers with token scaling. At these 4 of 6
    generators with layer normalization ended at one constant image
    (`docs/research.md`), and the augmented ResNet's gradient vanished.
    """
    rates = {
        "generator_learning_rate": 5e-4,
        "discriminator_learning_rate": 5e-4,
    }
    return replace(config, training=replace(config.training, **rates))


def base_config(row: str, preset: str | None = None) -> Config:
    """Returns sizes and recipe of a row, for `row_config`.

    Args:
        row: of one of the `TABLES`.
        preset: its name; None for networks of the digits.

    Raises:
        ConfigError: there is no such preset, or no ResNet of it.
    """
    if row in ROWS:
        return get_preset(preset).config if preset else digits_config()
    config = get_preset(preset or "mnist").config
    if row.startswith("resnet"):
        name = f"{config.preset}_resnet"
        if name not in preset_names():
            raise ConfigError(
                f"the row {row} needs a preset that has a ResNet, as mnist and "
                f"cifar10 do: there is no {name}"
            )
        config = get_preset(name).config
    return config if preset else _slowed(_shortened(config))


def row_config(base: Config, row: str) -> Config:
    """Returns the configuration of a row of one of the `TABLES`.

    Args:
        base: gives the sizes and the recipe; its discriminator is that of the
            rows with several scales.
        row: its key.

    Raises:
        ConfigError: the row would not differ from the one before it, or
            breaks a rule.
    """
    if row in ARCHITECTURE_ROWS:
        policy = ""
        if row.endswith("augmented"):
            policy = base.training.augmentation or DIFF_AUGMENT
        return base.override([f"training.augmentation={policy}"])
    order = list(ROWS)
    check_windows(base)
    reached = set(order[: order.index(row) + 1])
    fields = {
        "attention": row if row in ATTENTIONS else "grid",
        "norm": "token_scaling" if "token_scaling" in reached else "layer_norm",
        "relative_position": "relative_position" in reached,
    }
    changes = {
        f"{network}.{field}": value
        for network in ("generator", "discriminator")
        for field, value in fields.items()
    }
    if "multi_scale" not in reached:
        changes |= _single_scale(base.discriminator)
    elif not _is_multi_scale(base.discriminator):
        raise ConfigError(
            f"the row {row} needs a base whose discriminator has several scales"
        )
    if row == "augmentation":
        other = "" if base.training.augmentation else DIFF_AUGMENT
        changes["training.augmentation"] = other
    return base.override(f"{name}={value}" for name, value in changes.items())


def check_windows(base: Config) -> None:
    """Raises `ConfigError` if all attentions would be the same."""
    for network in (base.generator, base.discriminator):
        for stage in network.stages:
            windows = set(stage.block_windows()) - {stage.resolution}
            if stage.resolution > network.attention_above and windows:
                return
    raise ConfigError(
        "the attention of no stage would be replaced, since none above "
        f"generator.attention_above = {base.generator.attention_above} and "
        "discriminator.attention_above = "
        f"{base.discriminator.attention_above} has windows: lower these by "
        "--set, and make windows of the stages above them smaller than the map"
    )


def _is_multi_scale(discriminator):
    return discriminator.multi_scale and len(discriminator.stages) > 1


def _single_scale(discriminator):
    """Returns what makes a discriminator one of the last stage's width."""
    width = discriminator.stages[-1].width
    changes = {
        f"discriminator.stages.{index}.width": width
        for index in range(len(discriminator.stages))
    }
    return changes | {"discriminator.multi_scale": False}


def title(row: str, config: Config) -> str:
    """Returns what a row is called in table and plot."""
    name = (ROWS | ARCHITECTURE_ROWS)[row]
    if row in ROWS and row != "augmentation":
        return name
    policy = config.training.augmentation
    return f"{name}, " + (f"with {policy}" if policy else "not augmented")


def summarize(results: list[dict], row: str) -> dict[str, list[float]]:
    """Returns a row's scores by name, one number for each seed.

    Args:
        results: `row`, `seed` and `metrics`, numbers by name, of each run.
        row: its key in one of the `TABLES`.
    """
    scores = {}
    for result in results:
        if result["row"] == row:
            for name, value in result["metrics"].items():
                if not name.endswith("_std"):
                    scores.setdefault(name, []).append(value)
    return scores


def table(configs: dict[str, Config], results: list[dict]) -> str:
    """Returns the Markdown table of an ablation.

    Scores are means over the seeds, and deviations if there are several.

    Args:
        configs: by row, in order.
        results: see `summarize`.
    """
    names = _score_names(configs, results)
    head = ["row", "generator", "discriminator", "runs", *names]
    lines = [head, ["---"] * len(head)]
    for row, config in configs.items():
        scores = summarize(results, row)
        runs = max(map(len, scores.values()), default=0)
        lines.append(
            [
                title(row, config),
                f"{generator_parameters(config.generator):,}",
                f"{discriminator_parameters(config.discriminator):,}",
                str(runs),
                *(_describe(scores.get(name, [])) for name in names),
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _score_names(configs, results):
    found = (name for row in configs for name in summarize(results, row))
    return list(dict.fromkeys(found))


def _describe(values):
    if not values:
        return "none"
    text = f"{statistics.mean(values):.4g}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.2g}"
    return text


def draw(configs: dict[str, Config], results: list[dict], path) -> None:
    """Draws a panel for each score: a point for each run, a line for the mean.

    Args:
        configs, results: see `table`.
        path: file to write.
    """
    from matplotlib.figure import Figure

    names = _score_names(configs, results)
    size = (3 + 3.5 * len(names), 1.2 + 0.4 * len(configs))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        for place, row in enumerate(configs):
            values = summarize(results, row).get(name, [])
            panel.plot(values, [place] * len(values), "o", color="C0")
            if values:
                mean = statistics.mean(values)
                panel.plot([mean] * 2, [place - 0.3, place + 0.3], color="C1")
        panel.set_xlabel(name)
        panel.grid(axis="x", alpha=0.3)
    titles = [title(row, config) for row, config in configs.items()]
    panels[0].set_yticks(range(len(titles)), titles)
    panels[0].invert_yaxis()
    figure.savefig(Path(path), dpi=110)
