"""What networks are: stages as rows of data, checked when they are made.

Every mistake is a `ConfigError` with one sentence that names the field, the
rule and the value. This module imports no TensorFlow.
"""

import dataclasses
from dataclasses import dataclass

from transgan_tf.checked import Checked
from transgan_tf.checked import require
from transgan_tf.checked import require_choice

ARCHITECTURES = ("transformer", "resnet")
ATTENTIONS = ("grid", "standard", "nystrom", "axis")
NORMS = ("layer_norm", "token_scaling")
UPSAMPLES = ("bicubic", "pixel_shuffle")
OUTPUT_ACTIVATIONS = ("linear", "tanh")

# Grid self-attention is used above this resolution, in windows of this side
# (the authors' issue #32 and their 256 px networks).
LARGEST_GLOBAL_RESOLUTION = 32
DEFAULT_WINDOW = 16
# The authors' `cfg.py --num_landmarks`.
DEFAULT_LANDMARKS = 64
# Of the pseudo-inverse (https://arxiv.org/abs/2102.03902).
NYSTROM_ITERATIONS = 6

# What networks and stages have that a ResNet has no use for.
OF_TRANSFORMERS = (
    "heads",
    "mlp_ratio",
    "relative_position",
    "attention_noise",
    "attention",
    "attention_above",
    "landmarks",
    "multi_scale",
)
OF_TRANSFORMER_STAGES = ("window", "global_blocks", "upsample")


@dataclass(frozen=True)
class Stage(Checked):
    """One stage of a network: blocks of one width on a map of one resolution.

    Attributes:
        resolution: side of the square map in tokens.
        width: channels of a token.
        depth: number of blocks. In a ResNet, whose first block of a stage
            changes the resolution, at least 1, but for the stage that a
            generator makes from the latent.
        window: side of the attention windows; equal to `resolution` for global
            attention. Left out, it is global up to 32 and 16 above.
        global_blocks: how many of the last blocks attend over the whole map
            whatever the window (the Church discriminator's `blocks_11`).
        upsample: how a generator's tokens come into the stage, `"bicubic"`
            (same width) or `"pixel_shuffle"` (a quarter of it). None for a
            generator's first stage, and throughout a discriminator or a ResNet.
    """

    resolution: int
    width: int
    depth: int
    window: int | None = None
    global_blocks: int = 0
    upsample: str | None = None

    prefix = "stage"

    def check(self):
        self.require_at_least(1, "resolution", "width")
        self.require_at_least(0, "depth", "global_blocks")
        if self.window is None:
            small = self.resolution <= LARGEST_GLOBAL_RESOLUTION
            window = self.resolution if small else DEFAULT_WINDOW
            object.__setattr__(self, "window", window)
        self.require_at_least(1, "window")
        rule = f"must divide the map's resolution {self.resolution}"
        divides = self.resolution % self.window == 0
        require(divides, "stage.window", rule, self.window)
        rule = f"must not exceed the stage's depth {self.depth}"
        enough = self.global_blocks <= self.depth
        require(enough, "stage.global_blocks", rule, self.global_blocks)

    def block_windows(self) -> tuple[int, ...]:
        """Returns the attention window of each block, in order."""
        local = self.depth - self.global_blocks
        windows = [self.window] * local
        return tuple(windows + [self.resolution] * self.global_blocks)


@dataclass(frozen=True)
class NetworkConfig(Checked):
    """What both networks have.

    Attributes:
        stages: the rows that the network is built from, in the data's order.
        channels: 3 for colour images, 1 for grey ones.
        heads: attention heads of every block; each width is divisible by it.
        mlp_ratio: hidden width of a block's MLP over the block's width.
        norm: `"layer_norm"` or `"token_scaling"` (the paper's modified
            normalization); in a ResNet also `"none"`.
        relative_position: whether attention has relative position encoding
            (`"nystrom"` has none in any case: landmarks have no place).
        attention_noise: whether every attention has a learned noise strength.
        attention: how all blocks of the stages above `attention_above` attend:
            `"grid"`, as their windows and global blocks say; `"standard"`, over
            the whole map; `"nystrom"`, by way of landmarks; `"axis"`, along
            rows and then columns (the paper's Table 3, A to D). The other
            stages attend as their windows say.
        attention_above: the largest resolution that `attention` leaves alone.
        landmarks: of `"nystrom"`; divides the tokens of its stages.
        architecture: `"transformer"`, or `"resnet"` for a convolutional network
            of the same stages (`transgan_tf.resnet`), which takes of these
            fields stages, channels and norm.
    """

    stages: tuple[Stage, ...]
    channels: int = 3
    heads: int = 4
    mlp_ratio: int = 4
    norm: str = "layer_norm"
    relative_position: bool = True
    attention_noise: bool = False
    attention: str = "grid"
    attention_above: int = LARGEST_GLOBAL_RESOLUTION
    landmarks: int = DEFAULT_LANDMARKS
    architecture: str = "transformer"

    def check(self):
        name = self.field("architecture")
        require_choice(name, self.architecture, ARCHITECTURES)
        require(
            self.channels in (1, 3),
            self.field("channels"),
            "must be 1 (grey) or 3 (colour)",
            self.channels,
        )
        require(
            len(self.stages) > 0,
            self.field("stages"),
            "must have at least one stage",
            self.stages,
        )
        if self.is_resnet:
            self._check_resnet()
        else:
            self._check_transformer()

    @property
    def is_resnet(self) -> bool:
        return self.architecture == "resnet"

    def require_architecture(self, architecture: str) -> None:
        """Raises `ConfigError` if this is of another architecture."""
        name = self.field("architecture")
        rule = f"must be {architecture!r} for this network"
        same = self.architecture == architecture
        require(same, name, rule, self.architecture)

    def _check_resnet(self):
        require_choice(self.field("norm"), self.norm, (*NORMS, "none"))
        rule = "must be left out in a ResNet"
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        # A generator has no multi_scale.
        for name in filter(defaults.__contains__, OF_TRANSFORMERS):
            value = getattr(self, name)
            require(value == defaults[name], self.field(name), rule, value)
        for index, stage in enumerate(self.stages):
            plain = Stage(stage.resolution, stage.width, stage.depth)
            for name in OF_TRANSFORMER_STAGES:
                value = getattr(stage, name)
                left_out = value == getattr(plain, name)
                require(left_out, self.stage_field(index, name), rule, value)

    def _check_depth(self, index):
        """Of a ResNet's stage that changes the resolution."""
        depth, name = self.stages[index].depth, self.stage_field(index, "depth")
        rule = "must be at least 1, for the block that changes the resolution"
        require(depth >= 1, name, rule, depth)

    def _check_transformer(self):
        self.require_at_least(1, "heads", "mlp_ratio", "landmarks")
        self.require_at_least(0, "attention_above")
        require_choice(self.field("attention"), self.attention, ATTENTIONS)
        require_choice(self.field("norm"), self.norm, NORMS)
        for index, stage in enumerate(self.stages):
            require(
                stage.width % self.heads == 0,
                self.stage_field(index, "width"),
                f"must be divisible by {self.field('heads')} = {self.heads}",
                stage.width,
            )
            if stage.depth and self.attention_of(stage) == "nystrom":
                tokens = stage.resolution**2
                place = f"{self.field('stages')}[{index}]"
                require(
                    tokens % self.landmarks == 0,
                    self.field("landmarks"),
                    f"must divide the {tokens} tokens of {place}",
                    self.landmarks,
                )

    def attention_of(self, stage: Stage) -> str:
        """Returns how the blocks of a stage attend, one of `ATTENTIONS`."""
        replaced = stage.resolution > self.attention_above
        return self.attention if replaced else "grid"

    def attention_scores(self, stage: Stage) -> tuple[int, ...]:
        """Returns how many scores each block of a stage has for an image.

        A pseudo-inverse counts as the 4 matrices of each of its 6 iterations.
        A ResNet's blocks have none.
        """
        if self.is_resnet:
            return ()
        tokens = stage.resolution**2
        inverse = 4 * NYSTROM_ITERATIONS + 1  # And what it is the inverse of.
        scores = {
            "standard": tokens**2,
            "axis": 2 * tokens * stage.resolution,
            "nystrom": 2 * tokens * self.landmarks
            + inverse * self.landmarks**2,
        }
        kind = self.attention_of(stage)
        if kind == "grid":
            blocks = [tokens * window**2 for window in stage.block_windows()]
        else:
            blocks = [scores[kind]] * stage.depth
        return tuple(self.heads * block for block in blocks)

    def stage_name(self, stage: Stage) -> str:
        """Returns what a stage is called, such as `generator.32`."""
        return f"{self.prefix}.{stage.resolution}"

    def stage_field(self, index: int, name: str) -> str:
        return f"{self.field('stages')}[{index}].{name}"


@dataclass(frozen=True)
class GeneratorConfig(NetworkConfig):
    """A generator: latent -> first map -> stages that double it -> RGB.

    Attributes:
        latent_dim: width of the latent z.
        output_activation: `"linear"`, as the authors have it, or `"tanh"`, for
            images much of which is quite black or white.
    """

    latent_dim: int = 512
    output_activation: str = "linear"

    prefix = "generator"

    @property
    def image_size(self) -> int:
        return self.stages[-1].resolution

    def check(self):
        super().check()
        self.require_at_least(1, "latent_dim")
        name = self.field("output_activation")
        require_choice(name, self.output_activation, OUTPUT_ACTIVATIONS)
        require(
            self.stages[0].upsample is None,
            self.stage_field(0, "upsample"),
            "must be left out, since the first stage is made from the latent",
            self.stages[0].upsample,
        )
        for index in range(1, len(self.stages)):
            before, stage = self.stages[index - 1], self.stages[index]
            twice = 2 * before.resolution
            require(
                stage.resolution == twice,
                self.stage_field(index, "resolution"),
                f"must be twice the resolution before it, {twice}",
                stage.resolution,
            )
            if self.is_resnet:
                self._check_depth(index)
            else:
                self._check_upsampling(index)

    def _check_upsampling(self, index):
        before, stage = self.stages[index - 1], self.stages[index]
        name = self.stage_field(index, "upsample")
        require_choice(name, stage.upsample or "nothing", UPSAMPLES)
        shrink = {"bicubic": 1, "pixel_shuffle": 4}[stage.upsample]
        require(
            stage.width * shrink == before.width,
            self.stage_field(index, "width"),
            f"must be the width before it, {before.width}, divided by "
            f"{shrink} ({stage.upsample})",
            stage.width,
        )


@dataclass(frozen=True)
class DiscriminatorConfig(NetworkConfig):
    """A multi-scale discriminator, or a ResNet.

    The image is embedded once per stage, in patches of side `image_size /
    resolution`. The first stage's embedding has the stage's width; each later
    one has the difference of the widths and joins the pooled tokens. A ResNet
    takes the image once, and each stage halves the map.

    Attributes:
        image_size: side of the square images in pixels.
        multi_scale: whether later stages take patches of the image, too. If
            not, they pool alone, and all stages have one width.
    """

    image_size: int = 32
    multi_scale: bool = True

    prefix = "discriminator"

    def patch_size(self, index: int) -> int:
        """Returns the side in pixels of the patches of stage `index`."""
        return self.image_size // self.stages[index].resolution

    def embedding_width(self, index: int) -> int:
        """Returns the channels that stage `index` takes from the image."""
        before = self.stages[index - 1].width if index else 0
        return self.stages[index].width - before

    def check(self):
        super().check()
        self.require_at_least(1, "image_size")
        if self.is_resnet:
            self._check_halving()
        else:
            self._check_scales()

    def _check_halving(self):
        before = self.image_size
        for index, stage in enumerate(self.stages):
            require(
                stage.resolution * 2 == before,
                self.stage_field(index, "resolution"),
                f"must be half the resolution before it, {before}",
                stage.resolution,
            )
            self._check_depth(index)
            before = stage.resolution

    def _check_scales(self):
        for index, stage in enumerate(self.stages):
            require(
                stage.upsample is None,
                self.stage_field(index, "upsample"),
                "must be left out in a discriminator",
                stage.upsample,
            )
            require(
                self.image_size % stage.resolution == 0,
                self.stage_field(index, "resolution"),
                f"must divide discriminator.image_size = {self.image_size}",
                stage.resolution,
            )
            if index:
                self._check_pooling(index)

    def _check_pooling(self, index):
        before, stage = self.stages[index - 1], self.stages[index]
        require(
            stage.resolution * 2 == before.resolution,
            self.stage_field(index, "resolution"),
            f"must be half the resolution before it, {before.resolution}",
            stage.resolution,
        )
        name = self.stage_field(index, "width")
        if self.multi_scale:
            rule = (
                f"must exceed the width before it, {before.width}, by the "
                "channels of the stage's own patches"
            )
            require(stage.width > before.width, name, rule, stage.width)
        else:
            rule = (
                f"must be the width before it, {before.width}, without "
                "discriminator.multi_scale"
            )
            require(stage.width == before.width, name, rule, stage.width)
