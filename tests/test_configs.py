"""Configurations: rules and their sentences, JSON, overrides."""

import dataclasses
import json

import pytest

from tests.tiny import tiny_config
from tests.tiny import tiny_discriminator
from tests.tiny import tiny_generator
from transgan_tf.checked import ConfigError
from transgan_tf.checked import differences
from transgan_tf.configs import Config
from transgan_tf.configs import EvaluationConfig
from transgan_tf.configs import TrainingConfig
from transgan_tf.network_configs import Stage


def generator_with(*rows, **fields):
    stages = tuple(Stage(**row) for row in rows)
    return tiny_generator(stages=stages, **{"heads": 1} | fields)


def discriminator_with(*rows, **fields):
    stages = tuple(Stage(**row) for row in rows)
    return tiny_discriminator(stages=stages, **{"heads": 1} | fields)


def row(resolution, width, upsample=None, **fields):
    return {
        "resolution": resolution,
        "width": width,
        "depth": 1,
        "upsample": upsample,
        **fields,
    }


def test_json_round_trip():
    config = tiny_config(
        {"attention_noise": True}, ema_beta=0.5, accumulation=2
    )
    again = Config.from_json(config.to_json())
    assert again == config
    assert again.to_json() == config.to_json()
    assert isinstance(again.generator.stages[1], Stage)
    assert isinstance(again.generator.stages, tuple)


def test_json_is_the_plain_fields():
    values = json.loads(tiny_config().to_json())
    assert list(values) == [
        "preset",
        "generator",
        "discriminator",
        "training",
        "evaluation",
        "dataset",
        "converted_from",
    ]
    assert values["generator"]["stages"][2] == {
        "resolution": 12,
        "width": 6,
        "depth": 1,
        "window": 4,
        "global_blocks": 0,
        "upsample": "pixel_shuffle",
    }


def test_the_recipe_defaults_to_the_papers():
    training = TrainingConfig()
    assert (training.batch_size, training.generator_batch_size) == (64, 128)
    assert (training.n_critic, training.images_per_step) == (4, 256)
    assert (training.loss, training.penalty_weight) == ("wgan_gp", 10.0)
    assert training.drift_weight == 1e-3
    assert training.generator_learning_rate == 1e-4
    assert training.discriminator_learning_rate == 1e-4
    assert (training.beta_1, training.beta_2) == (0.0, 0.99)
    assert (training.epsilon, training.clip_norm) == (1e-8, 5.0)
    assert (training.ema_images, training.ema_warmup) == (500_000, 0.1)
    assert training.augmentation == "translation,cutout,color"
    assert not EvaluationConfig().attention_noise
    assert tiny_config().evaluation.num_images == 50_000


@pytest.mark.parametrize(
    "resolution, window", [(8, 8), (32, 32), (48, 16), (64, 16)]
)
def test_the_window_left_out_is_global_up_to_32(resolution, window):
    assert Stage(resolution, 5, 1).window == window


def test_block_windows():
    assert Stage(12, 5, 3, 4, 1).block_windows() == (4, 4, 12)
    assert Stage(12, 5, 2, 6).block_windows() == (6, 6)
    assert Stage(12, 5, 2, 6, 2).block_windows() == (12, 12)
    assert Stage(12, 5, 0).block_windows() == ()


def test_derived_sizes():
    config = tiny_config()
    assert config.generator.image_size == 12
    judge = config.discriminator
    assert [judge.patch_size(i) for i in (0, 1)] == [2, 4]
    assert [judge.embedding_width(i) for i in (0, 1)] == [9, 6]


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_config().training.steps = 7


# Each entry: what to make, then the field, a part of the rule and the value
# that the sentence must hold.
BROKEN = [
    (lambda: Stage(0, 4, 1), "stage.resolution", "at least 1", "got 0"),
    (lambda: Stage(4, 0, 1), "stage.width", "at least 1", "got 0"),
    (lambda: Stage(4, 4, -1), "stage.depth", "at least 0", "got -1"),
    (lambda: Stage(4, 4, 1, 0), "stage.window", "at least 1", "got 0"),
    (lambda: Stage(12, 4, 1, 5), "stage.window", "divide the map's", "got 5"),
    (
        lambda: Stage(4, 4, 1, 2, 2),
        "stage.global_blocks",
        "not exceed the stage's depth 1",
        "got 2",
    ),
    (
        lambda: tiny_generator(stages=()),
        "generator.stages",
        "at least one stage",
        "got ()",
    ),
    (
        lambda: tiny_generator(channels=2),
        "generator.channels",
        "1 (grey) or 3 (colour)",
        "got 2",
    ),
    (
        lambda: tiny_generator(heads=5),
        "generator.stages[0].width",
        "divisible by generator.heads = 5",
        "got 24",
    ),
    (lambda: tiny_generator(heads=0), "generator.heads", "at least 1", "got 0"),
    (
        lambda: tiny_generator(mlp_ratio=0),
        "generator.mlp_ratio",
        "at least 1",
        "got 0",
    ),
    (
        lambda: tiny_generator(latent_dim=0),
        "generator.latent_dim",
        "at least 1",
        "got 0",
    ),
    (
        lambda: tiny_generator(output_activation="tan"),
        "generator.output_activation",
        "one of linear, tanh",
        "got 'tan'; did you mean 'tanh'?",
    ),
    (
        lambda: tiny_generator(norm="layernorm"),
        "generator.norm",
        "one of layer_norm, token_scaling",
        "got 'layernorm'; did you mean 'layer_norm'?",
    ),
    (
        lambda: generator_with(row(3, 8, "bicubic")),
        "generator.stages[0].upsample",
        "must be left out",
        "got 'bicubic'",
    ),
    (
        lambda: generator_with(row(3, 8), row(6, 8)),
        "generator.stages[1].upsample",
        "one of bicubic, pixel_shuffle",
        "got 'nothing'",
    ),
    (
        lambda: generator_with(row(3, 8), row(7, 8, "bicubic")),
        "generator.stages[1].resolution",
        "twice the resolution before it, 6",
        "got 7",
    ),
    (
        lambda: generator_with(row(3, 8), row(6, 2, "bicubic")),
        "generator.stages[1].width",
        "the width before it, 8, divided by 1 (bicubic)",
        "got 2",
    ),
    (
        lambda: generator_with(row(3, 8), row(6, 8, "pixel_shuffle")),
        "generator.stages[1].width",
        "the width before it, 8, divided by 4 (pixel_shuffle)",
        "got 8",
    ),
    (
        lambda: discriminator_with(row(6, 9, "bicubic")),
        "discriminator.stages[0].upsample",
        "must be left out in a discriminator",
        "got 'bicubic'",
    ),
    (
        lambda: discriminator_with(row(5, 9)),
        "discriminator.stages[0].resolution",
        "must divide discriminator.image_size = 12",
        "got 5",
    ),
    (
        lambda: discriminator_with(row(6, 9), row(2, 15)),
        "discriminator.stages[1].resolution",
        "half the resolution before it, 6",
        "got 2",
    ),
    (
        lambda: discriminator_with(row(6, 9), row(3, 9)),
        "discriminator.stages[1].width",
        "must exceed the width before it, 9",
        "got 9",
    ),
    (
        lambda: discriminator_with(row(6, 9), row(3, 15), multi_scale=False),
        "discriminator.stages[1].width",
        "must be the width before it, 9, without discriminator.multi_scale",
        "got 15",
    ),
    (
        lambda: tiny_generator(attention="nystrom", attention_above=3),
        "generator.landmarks",
        "must divide the 36 tokens of generator.stages[1]",
        "got 64",
    ),
    (
        lambda: tiny_generator(attention="axial"),
        "generator.attention",
        "must be one of grid, standard, nystrom, axis",
        "got 'axial'; did you mean 'axis'?",
    ),
    (
        lambda: tiny_generator(attention_above=-1),
        "generator.attention_above",
        "at least 0",
        "got -1",
    ),
    (
        lambda: tiny_discriminator(landmarks=0),
        "discriminator.landmarks",
        "at least 1",
        "got 0",
    ),
    (
        lambda: tiny_discriminator(image_size=0),
        "discriminator.image_size",
        "at least 1",
        "got 0",
    ),
    (
        lambda: tiny_config(discriminator={"image_size": 24}),
        "discriminator.image_size",
        "must be the generator's image_size, 12",
        "got 24",
    ),
    (
        lambda: tiny_config({"channels": 1}),
        "discriminator.channels",
        "must be the generator's channels, 1",
        "got 3",
    ),
    (
        lambda: TrainingConfig(accumulation=3),
        "training.accumulation",
        "must divide training.batch_size = 64",
        "got 3",
    ),
    (
        lambda: TrainingConfig(generator_accumulation=3),
        "training.generator_accumulation",
        "must divide the generator's batch 128",
        "got 3",
    ),
    (
        lambda: TrainingConfig(loss="wgangp"),
        "training.loss",
        "one of wgan_gp, hinge, non_saturating_r1",
        "got 'wgangp'; did you mean 'wgan_gp'?",
    ),
    (
        lambda: TrainingConfig(precision="half"),
        "training.precision",
        "one of float32, bfloat16",
        "got 'half'",
    ),
    (
        lambda: TrainingConfig(strategy="tpu"),
        "training.strategy",
        "one of auto, mirrored, multi_worker, none",
        "got 'tpu'",
    ),
    (
        lambda: TrainingConfig(augmentation="color,cutuot"),
        "training.augmentation",
        "one of translation, cutout",
        "got 'cutuot'; did you mean 'cutout'?",
    ),
    (
        lambda: TrainingConfig(rematerialize_stages="generator.8"),
        "training.rematerialize_stages",
        "empty without training.rematerialize",
        "got 'generator.8'",
    ),
    (
        lambda: tiny_config(
            rematerialize=True, rematerialize_stages="generator.12,generator.7"
        ),
        "training.rematerialize_stages",
        "one of generator.3, generator.6, generator.12, discriminator.6",
        "got 'generator.7'; did you mean 'generator.6'?",
    ),
    (
        lambda: TrainingConfig(epsilon=0.0),
        "training.epsilon",
        "positive",
        "got 0.0",
    ),
    (
        lambda: TrainingConfig(clip_norm=-1.0),
        "training.clip_norm",
        "positive",
        "got -1.0",
    ),
    (
        lambda: TrainingConfig(ema_beta=1.0),
        "training.ema_beta",
        "in [0, 1)",
        "got 1.0",
    ),
    (
        lambda: TrainingConfig(drift_weight=-0.5),
        "training.drift_weight",
        "at least 0",
        "got -0.5",
    ),
    (
        lambda: TrainingConfig(clip_norm=float("nan")),
        "training.clip_norm",
        "finite",
        "got nan",
    ),
    (
        lambda: EvaluationConfig(num_images=1),
        "evaluation.num_images",
        "at least 2",
        "got 1",
    ),
    (
        lambda: EvaluationConfig(metrics="fid,kdi"),
        "evaluation.metrics",
        "must be one of fid, is, kid",
        "got 'kdi'; did you mean 'kid'?",
    ),
    (
        lambda: EvaluationConfig(seed=2**62 - 50_000),
        "evaluation.seed",
        "must be below 2**62 - num_images",
        "got 4611686018427337904",
    ),
    (
        lambda: EvaluationConfig(keep_best=True),
        "evaluation.keep_best",
        "must be false without fid in metrics or every_images",
        "got True",
    ),
]


@pytest.mark.parametrize("make, field, rule, value", BROKEN)
def test_a_broken_rule_names_field_rule_and_value(make, field, rule, value):
    with pytest.raises(ConfigError) as caught:
        make()
    sentence = str(caught.value)
    assert sentence.startswith(f"{field} must ")
    assert rule in sentence
    assert sentence.endswith(value)
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("steps", -1),
        ("seed", -1),
        *[
            (name, 0)
            for name in (
                "batch_size",
                "generator_batch_factor",
                "n_critic",
                "accumulation",
                "generator_accumulation",
                "keep_checkpoints",
                "checkpoint_every_steps",
                "log_every_steps",
                "sample_every_steps",
                "ema_images",
            )
        ],
        ("generator_learning_rate", 0.0),
        ("discriminator_learning_rate", 0.0),
        ("ema_warmup", 0.0),
        ("penalty_weight", -1.0),
        ("beta_1", 1.0),
        ("beta_2", -0.1),
    ],
)
def test_every_number_of_the_recipe_has_a_bound(name, wrong):
    with pytest.raises(ConfigError, match=rf"training\.{name} must be .*got"):
        TrainingConfig(**{name: wrong})


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"steps": 1.5}, "training.steps must be a whole number, got 1.5"),
        ({"steps": True}, "training.steps must be a whole number, got True"),
        ({"jit": 1}, "training.jit must be true or false, got 1"),
        ({"loss": 3}, "training.loss must be a text, got 3"),
        ({"beta_1": "0"}, "training.beta_1 must be a number, got '0'"),
        ({"stepz": 3}, "unknown key 'stepz' in training; did you mean 'steps'"),
        ({"zzzz": 3}, "unknown key 'zzzz' in training"),
    ],
)
def test_wrong_types_and_unknown_keys(values, sentence):
    whole = tiny_config().to_dict()
    whole["training"] |= values
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(whole)
    assert str(caught.value).startswith(sentence)


def test_mistakes_within_stages_say_where():
    values = tiny_config().to_dict()
    values["generator"]["stages"][1]["depht"] = 2
    with pytest.raises(ConfigError, match=r"in generator.stages\[1\]; did.*'d"):
        Config.from_dict(values)
    values = tiny_config().to_dict()
    del values["generator"]["stages"][2]["width"]
    with pytest.raises(ConfigError, match=r"stages\[2\] lacks the key 'width'"):
        Config.from_dict(values)
    values["generator"]["stages"] = 4
    with pytest.raises(ConfigError, match="stages must be a list, got 4"):
        Config.from_dict(values)


def test_json_that_is_none():
    with pytest.raises(ConfigError, match="not valid JSON: .*line 1"):
        Config.from_json("{")
    with pytest.raises(ConfigError, match="must be an object"):
        Config.from_json("[]")


def test_override_reads_by_the_fields_type():
    config = tiny_config().override(
        [
            "training.steps=7",
            "training.generator_learning_rate=2",
            "training.ema_beta=0.25",
            "training.jit=true",
            "training.augmentation=color,cutout",
            "generator.norm=layer_norm",
        ]
    )
    training = config.training
    assert training.steps == 7 and type(training.steps) is int
    rate = training.generator_learning_rate
    assert rate == 2.0 and type(rate) is float
    assert training.ema_beta == 0.25
    assert training.jit is True
    assert training.augmentation == "color,cutout"
    assert config.generator.norm == "layer_norm"
    assert config.override(["training.ema_beta=none"]).training.ema_beta is None
    # The original is as it was.
    assert tiny_config() != config


def test_override_applies_together():
    # Neither of the two is valid without the other.
    changes = ["training.batch_size=6", "training.accumulation=3"]
    assert tiny_config().override(changes).training.accumulation == 3
    with pytest.raises(ConfigError, match="training.accumulation"):
        tiny_config().override(changes[1:])


def test_override_names_stage_rows_by_number():
    config = tiny_config().override(["generator.stages.2.window=6"])
    windows = [stage.window for stage in config.generator.stages]
    assert windows == [3, 2, 6]


@pytest.mark.parametrize(
    "assignment, sentence",
    [
        ("training.steps", "--set takes field=value, got 'training.steps'"),
        ("training.stepz=3", "'training.stepz'; did you mean 'steps'?"),
        ("trainig.steps=3", "'trainig.steps'; did you mean 'training'?"),
        ("steps=3", "--set names no field: 'steps'"),
        ("training.steps.more=3", "--set names no field"),
        ("generator.stages.3.width=3", "by number below 3, got '3'"),
        ("generator.stages.-1.width=3", "by number below 3, got '-1'"),
        ("generator.stages.1=3", "names a whole stage, not its field"),
        ("training.steps=many", "training.steps must be a whole number"),
        ("training.steps=2.0", "training.steps must be a whole number"),
        ("training.jit=yes", "training.jit must be true or false"),
        ("training=3", "training must be an object, got 3"),
        ("training.steps=2147483648", "training.steps must be below 2**31"),
        (
            "generator.stages.2.window=5",
            "generator.stages[2].window must divide the map's resolution 12",
        ),
        ("training.steps=none", "training.steps must be a whole number"),
    ],
)
def test_override_refuses(assignment, sentence):
    with pytest.raises(ConfigError) as caught:
        tiny_config().override([assignment])
    assert sentence in str(caught.value)


def test_differences():
    old = tiny_config()
    changes = ["training.steps=7", "generator.stages.2.window=6"]
    assert differences(old, old.override(changes)) == [
        "generator.stages.2.window: 4 -> 6",
        "training.steps: 3 -> 7",
    ]
    assert differences(old, old) == []
    stages = (*old.discriminator.stages[:1],)
    shorter = tiny_config(discriminator={"stages": stages})
    assert "discriminator.stages.1.width: 15 -> absent" in differences(
        old, shorter
    )


def test_none_is_a_name_where_a_text_is_wanted():
    config = tiny_config(strategy="auto", ema_beta=0.5)
    changed = config.override(["training.strategy=none"])
    assert changed.training.strategy == "none"
    changed = config.override(["training.ema_beta=none"])
    assert changed.training.ema_beta is None
    upsample = "generator.stages.1.upsample=none"
    with pytest.raises(ConfigError, match="got 'nothing'"):
        config.override([upsample])
