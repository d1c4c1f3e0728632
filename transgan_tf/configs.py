"""Configurations: frozen dataclasses, checked once when they are made.

A `Config` says everything that a run depends on. It is written to
`config.json` in the run's folder, read back by `from_json`, and changed on the
command line by `--set generator.latent_dim=128`.

Every mistake is a `ConfigError` with one sentence that names the field, the
rule and the value. This module imports no TensorFlow.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field

from transgan_tf.checked import Checked
from transgan_tf.checked import ConfigError
from transgan_tf.checked import assign
from transgan_tf.checked import convert
from transgan_tf.checked import require
from transgan_tf.checked import require_choice
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig

LOSSES = ("wgan_gp", "hinge", "non_saturating_r1")
AUGMENTATIONS = (
    "translation",
    "cutout",
    "color",
    "erase_ratio",
    "stl_erase_ratio",
)
PRECISIONS = ("float32", "bfloat16", "float16")
STRATEGIES = ("auto", "mirrored", "multi_worker", "none")
# Of a score: their logits are held in memory.
MOST_SAMPLES = 10_000_000
METRICS = ("fid", "is", "kid", "precision_recall", "density_coverage")


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """The recipe. A step is one generator update and its critic updates.

    Attributes:
        steps: generator updates of the whole run.
        batch_size: real images of one discriminator update, over all replicas
            and micro-batches.
        generator_batch_factor: the generator's batch is this many times
            `batch_size` (the authors': 128 against 64).
        n_critic: discriminator updates before each generator update.
        accumulation: micro-batches that a discriminator batch is split into.
        generator_accumulation: the same for the generator's batch.
        loss: `"wgan_gp"`, `"hinge"` or `"non_saturating_r1"`.
        penalty_weight: weight of the loss's gradient penalty.
        drift_weight: weight of `mean(D(real))**2` (WGAN-GP alone).
        generator_learning_rate, discriminator_learning_rate: Adam's.
        beta_1, beta_2, epsilon: Adam's.
        decay_start: share of the steps after which both rates fall linearly, to
            0 at `steps`: 0 is the authors' `--lr_decay`, 1 keeps them constant.
        clip_norm: global norm that each network's gradients are clipped to.
        max_bad_steps: an update whose loss or gradients are not finite is
            skipped; after so many steps in a row with such, training stops.
        augmentation: comma-separated policy of differentiable augmentation;
            empty for none.
        horizontal_flip: whether real images are mirrored at random.
        ema_images: half-life in images of the generator's moving average.
        ema_warmup: the half-life is at most this share of the images seen.
        ema_beta: a fixed decay instead of the two above.
        seed: of every random draw.
        precision: type of the matrix multiplications; `"float16"` scales the
            losses, see `transgan_tf.loss_scale`.
        rematerialize: whether the activations of each block are made again for
            its gradient instead of kept: less memory for more time.
        rematerialize_stages: comma-separated names of the stages whose blocks
            that is done for, a network and a resolution such as
            `"generator.64,discriminator.32"`; empty for all. The CLS token's
            block belongs to the discriminator's last.
        jit: whether the gradient functions are compiled by XLA.
        strategy: one of `STRATEGIES`; see `transgan_tf.training.make_strategy`.
        checkpoint_every_steps, keep_checkpoints: how often, and how many.
        log_every_steps, sample_every_steps: how often curves and grids are
            written.
    """

    steps: int = 500_000
    batch_size: int = 64
    generator_batch_factor: int = 2
    n_critic: int = 4
    accumulation: int = 1
    generator_accumulation: int = 1
    loss: str = "wgan_gp"
    penalty_weight: float = 10.0
    drift_weight: float = 1e-3
    generator_learning_rate: float = 1e-4
    discriminator_learning_rate: float = 1e-4
    beta_1: float = 0.0
    beta_2: float = 0.99
    epsilon: float = 1e-8
    decay_start: float = 1.0
    clip_norm: float = 5.0
    max_bad_steps: int = 10
    augmentation: str = "translation,cutout,color"
    horizontal_flip: bool = True
    ema_images: int = 500_000
    ema_warmup: float = 0.1
    ema_beta: float | None = None
    seed: int = 0
    precision: str = "float32"
    rematerialize: bool = False
    rematerialize_stages: str = ""
    jit: bool = True
    strategy: str = "auto"
    checkpoint_every_steps: int = 1000
    keep_checkpoints: int = 3
    log_every_steps: int = 50
    sample_every_steps: int = 500

    prefix = "training"

    @property
    def generator_batch_size(self) -> int:
        return self.batch_size * self.generator_batch_factor

    @property
    def images_per_step(self) -> int:
        """Real images that one step takes."""
        return self.batch_size * self.n_critic

    def check(self):
        self._check_counts()
        self._check_numbers()
        require_choice(self.field("loss"), self.loss, LOSSES)
        require_choice(self.field("precision"), self.precision, PRECISIONS)
        require_choice(self.field("strategy"), self.strategy, STRATEGIES)
        for name in filter(None, self.augmentation.split(",")):
            require_choice(self.field("augmentation"), name, AUGMENTATIONS)
        allowed = self.rematerialize or not self.rematerialize_stages
        rule = "must be empty without training.rematerialize"
        stages = self.rematerialize_stages
        require(allowed, self.field("rematerialize_stages"), rule, stages)

    def _check_counts(self):
        self.require_at_least(0, "steps", "seed")
        # A step's number is folded into its random key as an int32.
        fits = self.steps < 2**31
        require(fits, "training.steps", "must be below 2**31", self.steps)
        self.require_at_least(1, "batch_size", "generator_batch_factor")
        self.require_at_least(1, "n_critic", "keep_checkpoints")
        self.require_at_least(1, "accumulation", "generator_accumulation")
        self.require_at_least(1, "checkpoint_every_steps", "ema_images")
        self.require_at_least(1, "log_every_steps", "sample_every_steps")
        self.require_at_least(1, "max_bad_steps")
        # What Keras' and NumPy's generators take.
        inside = self.seed < 2**32
        require(inside, self.field("seed"), "must be below 2**32", self.seed)
        require(
            self.batch_size % self.accumulation == 0,
            self.field("accumulation"),
            f"must divide training.batch_size = {self.batch_size}",
            self.accumulation,
        )
        require(
            self.generator_batch_size % self.generator_accumulation == 0,
            self.field("generator_accumulation"),
            f"must divide the generator's batch {self.generator_batch_size}",
            self.generator_accumulation,
        )

    def _check_numbers(self):
        self.require_at_least(0, "penalty_weight", "drift_weight")
        positive = ("generator_learning_rate", "discriminator_learning_rate")
        for name in (*positive, "epsilon", "clip_norm", "ema_warmup"):
            value = getattr(self, name)
            require(value > 0, self.field(name), "must be positive", value)
        for name in ("beta_1", "beta_2", "ema_beta"):
            value = getattr(self, name)
            inside = value is None or 0 <= value < 1
            require(inside, self.field(name), "must be in [0, 1)", value)
        share = self.decay_start
        rule = "must be in [0, 1]"
        require(0 <= share <= 1, self.field("decay_start"), rule, share)


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """How a trained generator is sampled and scored.

    Attributes:
        num_images: samples of a score, at least 2.
        seed: seed of the first sample.
        attention_noise: whether a generator that has attention noise also adds
            it while sampling, as the authors' code does. Off, a seed names one
            image.
        features: `"inception"`, `"classifier"` (the digits' own), or the
            folder of a SavedModel.
        metrics: names out of `METRICS`, separated by commas.
        every_images: real images between evaluations while training, the first
            before the first step; 0 for none.
        time_limit: seconds after which sampling for one evaluation gives up;
            0 for never.
        keep_best: whether the checkpoint of the lowest FID is kept, too.
    """

    num_images: int = 50_000
    seed: int = 0
    attention_noise: bool = False
    features: str = "inception"
    metrics: str = "fid,is"
    every_images: int = 0
    time_limit: int = 1800
    keep_best: bool = False

    prefix = "evaluation"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return tuple(self.metrics.split(","))

    def check(self):
        self.require_at_least(2, "num_images")
        fits = self.num_images <= MOST_SAMPLES
        rule = f"must be at most {MOST_SAMPLES:,}"
        require(fits, self.field("num_images"), rule, self.num_images)
        self.require_at_least(0, "seed", "every_images", "time_limit")
        last = self.seed + self.num_images
        rule = "must be below 2**62 - num_images"
        require(last < 2**62, self.field("seed"), rule, self.seed)
        for name in self.metric_names:
            require_choice(self.field("metrics"), name, METRICS)
        once = len(set(self.metric_names)) == len(self.metric_names)
        rule = "must name each metric once"
        require(once, self.field("metrics"), rule, self.metrics)
        if self.keep_best:
            rule = "must be false without fid in metrics or every_images"
            able = "fid" in self.metric_names and self.every_images > 0
            require(able, self.field("keep_best"), rule, True)


@dataclass(frozen=True)
class Config(Checked):
    """Everything that a run depends on.

    Attributes:
        preset: name of the preset that it started from.
        generator, discriminator, training, evaluation: the parts.
        dataset: what tells the images from others, filled in by training; the
            name alone in a run that was converted.
        converted_from: name and SHA-256 of the file that a run was converted
            from, see `transgan_tf.conversion`; otherwise empty.
    """

    preset: str
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    dataset: str = ""
    converted_from: str = ""

    def check(self):
        for name in ("image_size", "channels"):
            generated = getattr(self.generator, name)
            judged = getattr(self.discriminator, name)
            rule = f"must be the generator's {name}, {generated}"
            same = generated == judged
            require(same, f"discriminator.{name}", rule, judged)
        for name in filter(None, self.training.rematerialize_stages.split(",")):
            field = "training.rematerialize_stages"
            require_choice(field, name, self._stage_names())

    def _stage_names(self):
        networks = (self.generator, self.discriminator)
        return [n.stage_name(stage) for n in networks for stage in n.stages]

    def rematerialized_stages(self) -> tuple[str, ...]:
        """Returns the names of the stages whose blocks are recomputed."""
        if not self.training.rematerialize:
            return ()
        chosen = self.training.rematerialize_stages
        return tuple(chosen.split(",") if chosen else self._stage_names())

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: dict) -> "Config":
        return convert(cls, values, "")

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Reads what `to_json` wrote; unknown keys fail."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            message = f"the configuration is not valid JSON: {error}"
            raise ConfigError(message) from None
        return cls.from_dict(values)

    def override(self, assignments: Iterable[str]) -> "Config":
        """Returns a copy changed by `a.b=c` texts, applied together.

        Rows of stages are named by number: `generator.stages.2.window=7`.
        """
        values = self.to_dict()
        for assignment in assignments:
            assign(values, type(self), assignment)
        return self.from_dict(values)
