"""TransGAN: the adversarial training step as a Keras model."""

import enum

import keras
import tensorflow as tf

from transgan_tf.augment import DiffAugment
from transgan_tf.configs import Config
from transgan_tf.ema import ema_decay
from transgan_tf.ema import update_average
from transgan_tf.loss_scale import LossScale
from transgan_tf.loss_scale import enlarge
from transgan_tf.loss_scale import shrink
from transgan_tf.losses import drift
from transgan_tf.losses import get_loss
from transgan_tf.networks import make_discriminator
from transgan_tf.networks import make_generator
from transgan_tf.optimizers import paper_adam
from transgan_tf.randomness import Draws
from transgan_tf.randomness import fold_in
from transgan_tf.randomness import root_seed
from transgan_tf.remat import recomputing
from transgan_tf.splitting import Parts
from transgan_tf.splitting import ReplicatedMean
from transgan_tf.splitting import accumulate
from transgan_tf.splitting import average_over_replicas
from transgan_tf.splitting import read_weights
from transgan_tf.splitting import replica_count
from transgan_tf.splitting import same_on_replicas
from transgan_tf.updates import update_weights


class Purpose(enum.IntEnum):
    """What a random draw within one update is for."""

    LATENTS = 0
    GENERATOR_NOISE = 1
    MIX = 2
    REAL = 3
    FAKE = 4
    PENALTY = 5


class TransGAN(keras.Model):
    """A generator and a discriminator, trained by `fit`.

    One step is `n_critic` discriminator updates, one generator update and one
    update of the moving average. A batch of the dataset is all the real images
    of one step, its size fixed (`drop_remainder=True`):
    `(n_critic * batch_size, H, W, C)` float32 in [-1, 1], or a tuple whose
    first item is that. Image `j * n_critic + i` is sample j of
    update i, so that replicas, which get neighbouring rows, share each update.

    Calling the model samples: latents `(B, Z)` to images by the averaged
    weights.

    Args:
        generator: `Generator` or `ResNetGenerator`.
        discriminator: `Discriminator` or `ResNetDiscriminator`.

    Example:

    ```python
    config = get_preset("cifar10").config
    gan = TransGAN(
        Generator(config.generator), Discriminator(config.discriminator)
    )
    gan.compile(loss="hinge", n_critic=1)
    gan.fit(dataset)
    ```
    """

    def __init__(self, generator, discriminator, **kwargs):
        super().__init__(**kwargs)
        self.generator = generator
        self.discriminator = discriminator
        self.ema_generator = make_generator(
            generator.config, dtype=generator.dtype_policy, name="ema_generator"
        )
        self.ema_generator.trainable = False
        self.latent_dim = generator.config.latent_dim
        image = (None, *generator.compute_output_shape((None, None))[1:])
        for network in (generator, self.ema_generator):
            network.build((None, self.latent_dim))
        discriminator.build(image)
        self.ema_generator.set_weights(generator.get_weights())
        self.step = self._add_counter("step")
        # Updates that were skipped since they were not finite; the last steps
        # in a row with such; and the step at which those became too many.
        self.skipped_updates = self._add_counter("skipped_updates")
        self.bad_row = self._add_counter("bad_row")
        self.bad_step = self._add_counter("bad_step")
        self.loss_scales = {}
        if generator.compute_dtype == "float16":
            self.loss_scales = {
                name: LossScale(self._add_scalar, name)
                for name in ("discriminator", "generator")
            }
        self.trackers = {
            name: ReplicatedMean(name)
            for name in (
                "discriminator_loss",
                "generator_loss",
                "penalty",
                "real_logits",
                "fake_logits",
                "discriminator_gradient_norm",
                "generator_gradient_norm",
            )
        }
        self.built = True

    def compile(
        self,
        generator_optimizer=None,
        discriminator_optimizer=None,
        loss="wgan_gp",
        augment=None,
        n_critic=4,
        generator_batch_factor=2,
        accumulation=1,
        generator_accumulation=1,
        penalty_weight=10.0,
        drift_weight=1e-3,
        clip_norm=5.0,
        max_bad_steps=10,
        ema_images=500_000,
        ema_warmup=0.1,
        ema_beta=None,
        seed=0,
        jit=True,
        rematerialized=(),
        **kwargs,
    ):
        """Sets the recipe; call it in the strategy's scope, before `fit`.

        Args:
            generator_optimizer, discriminator_optimizer: Keras optimizers; the
                paper's Adam by default.
            loss: name, or `transgan_tf.losses.AdversarialLoss`.
            augment: `DiffAugment`, or None for no augmentation.
            jit: whether XLA compiles the functions that compute gradients.
            rematerialized: names of the stages whose blocks are recomputed, see
                `transgan_tf.network_configs.NetworkConfig.stage_name`.
            **kwargs: passed to `keras.Model.compile`.

        The others are the fields of `transgan_tf.configs.TrainingConfig`.
        """
        super().compile(optimizer=None, jit_compile=False, **kwargs)
        self.generator_optimizer = generator_optimizer or paper_adam()
        self.discriminator_optimizer = discriminator_optimizer or paper_adam()
        # Built here: within a replica's context they could not be.
        self.generator_optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(
            self.discriminator.trainable_variables
        )
        self.adversarial_loss = get_loss(loss)
        self.augment = augment or DiffAugment()
        self.n_critic = n_critic
        self.generator_batch_factor = generator_batch_factor
        self.accumulation = accumulation
        self.generator_accumulation = generator_accumulation
        self.penalty_weight = penalty_weight
        self.drift_weight = drift_weight
        self.clip_norm = clip_norm
        self.max_bad_steps = max_bad_steps
        self.ema_images = ema_images
        self.ema_warmup = ema_warmup
        self.ema_beta = ema_beta
        self.seed = seed
        self._compile_gradients(jit, rematerialized)

    def _compile_gradients(self, jit, rematerialized):
        """Makes graphs of the pure functions below, anew for each recipe."""

        def compiled(body):
            def function(*args):
                with recomputing(rematerialized):
                    return body(*args)

            return tf.function(function, jit_compile=jit, autograph=False)

        self._real_mean = compiled(self._real_mean_body)
        self._discriminator_gradients = compiled(self._discriminator_body)
        self._generator_gradients = compiled(self._generator_body)

    def _add_counter(self, name):
        return self._add_scalar(name, "int64", "zeros")

    def _add_scalar(self, name, dtype, initializer):
        return self.add_weight(
            name=name,
            shape=(),
            dtype=dtype,
            initializer=initializer,
            trainable=False,
            aggregation="only_first_replica",
        )

    def call(self, latents):
        return self.ema_generator(latents)

    # === The step ===

    def train_step(self, data):
        images = data[0] if isinstance(data, (tuple, list)) else data
        count, height, width, channels = images.shape
        if count is None or count % self.n_critic:
            raise ValueError(
                "a batch must have a fixed number of images, divisible by "
                f"n_critic = {self.n_critic}, got {count}: make it by "
                ".batch(n_critic * batch_size, drop_remainder=True)"
            )
        images = tf.reshape(
            images, (-1, self.n_critic, height, width, channels)
        )  # (B, n_critic, H, W, C)
        seed = fold_in(root_seed(self.seed), self.step.value)
        updates = []
        for update in range(self.n_critic):
            with _after(updates):
                key = fold_in(seed, update)
                updates.append(
                    self._update_discriminator(images[:, update], key)
                )
        batch = images.shape[0]
        with _after(updates):
            updates.append(
                self._update_generator(
                    batch * self.generator_batch_factor,
                    fold_in(seed, self.n_critic),
                )
            )
        logs, made, excused = zip(*updates, strict=True)
        self.step.assign_add(1)
        self._update_average(batch * replica_count())
        good = self._count_skipped(tf.stack(made), tf.stack(excused))
        # Of the discriminator's updates the last one is told of.
        return self._record(logs[-2] | logs[-1], good)

    def _record(self, logs, good):
        """Adds a step's logs to the means; returns these."""
        for name, value in same_on_replicas(logs).items():
            # A loss scale's too large gradients are no bad step.
            counts = good & tf.math.is_finite(value)
            # The weight alone would not do: 0 times NaN is NaN.
            value = tf.where(counts, value, 0.0)
            self.trackers[name].update_state(value, tf.cast(counts, tf.float32))
        # Under several workers `fit` averages over a first axis (Keras 3.15).
        strategy = tf.distribute.get_strategy()
        several = isinstance(
            strategy, tf.distribute.MultiWorkerMirroredStrategy
        )
        shape = (1,) if several else ()
        return {
            name: tf.reshape(tracker.result(), shape)
            for name, tracker in self.trackers.items()
        }

    def _update_discriminator(self, real, seed):
        """One update on a replica's real images `(B, H, W, C)`, by `_apply`."""
        weights = read_weights(self.generator), read_weights(self.discriminator)
        parts = Parts(real.shape[0], self.accumulation)
        scale = self._loss_scale("discriminator")
        split = tf.split(real, self.accumulation)
        split = list(zip(split, parts.starts, strict=True))
        real_mean = None
        drifts = self.adversarial_loss.has_drift and self.drift_weight
        if drifts and parts.total != parts.size:
            mean = accumulate(
                lambda images, start: self._real_mean(
                    weights[1], images, seed, start, parts.total
                ),
                split,
            )
            real_mean = average_over_replicas([mean])[0]
        gradients, logs = accumulate(
            lambda images, start: self._discriminator_gradients(
                *weights, images, seed, start, parts.total, real_mean, scale
            ),
            split,
        )
        return self._apply("discriminator", gradients, logs)

    def _update_generator(self, batch, seed):
        """One update on a replica's `batch` new latents; see `_apply`."""
        weights = read_weights(self.generator), read_weights(self.discriminator)
        parts = Parts(batch, self.generator_accumulation)
        scale = self._loss_scale("generator")
        gradients, logs = accumulate(
            lambda start: self._generator_gradients(
                *weights, seed, start, parts.size, parts.total, scale
            ),
            [(start,) for start in parts.starts],
        )
        return self._apply("generator", gradients, logs)

    def _apply(self, part, gradients, logs):
        """Updates the weights of the network that `part` names.

        Returns:
            Logs; whether the update was made; and the same, or whether the loss
            scale may be to blame, see `_settle`.
        """
        norm, made = update_weights(
            getattr(self, f"{part}_optimizer"),
            getattr(self, part),
            gradients,
            logs[f"{part}_loss"],
            self.clip_norm,
        )
        logs = logs | {f"{part}_gradient_norm": norm}
        return logs, made, self._settle(part, made)

    def _loss_scale(self, part):
        """Returns the scalar that a network's losses are scaled by, or None."""
        if part not in self.loss_scales:
            return None
        return tf.convert_to_tensor(self.loss_scales[part].scale.value)

    def _settle(self, part, made):
        """Adjusts the loss scale after an update, if there is one.

        Returns:
            Whether it was made, or skipped for a loss scale that is still to be
            lowered.
        """
        if part not in self.loss_scales:
            return made
        return self.loss_scales[part].settle(made)

    def _count_skipped(self, made, excused):
        """Counts a step's skipped updates.

        Args:
            made: `(n_critic + 1,)`, whether each was made.
            excused: the same, or whether the loss scale may be to blame.

        Returns:
            Whether none was bad.
        """
        good = tf.reduce_all(excused)
        skipped = tf.reduce_sum(tf.cast(~made, tf.int64))
        self.skipped_updates.assign_add(skipped)
        row = tf.where(good, tf.constant(0, tf.int64), self.bad_row.value + 1)
        self.bad_row.assign(row)
        last = (row >= self.max_bad_steps) & (self.bad_step.value == 0)
        self.bad_step.assign(
            tf.where(last, self.step.value, self.bad_step.value)
        )
        return good

    def _update_average(self, batch_size):
        updates = self.step.value * self.n_critic
        decay = ema_decay(
            updates * batch_size,
            batch_size,
            self.ema_images,
            self.ema_warmup,
            self.ema_beta,
        )
        update_average(
            self.ema_generator.variables, self.generator.variables, decay
        )

    # === Pure functions: weights in, gradients out ===

    def _judge(self, weights, images, draws):
        """Logits of augmented images."""
        images = self.augment(images, draws.fold_in(0))
        logits, _ = self.discriminator.stateless_call(
            weights, [], images, draws=draws.fold_in(1)
        )
        return logits  # (B, 1)

    def _generate(self, weights, draws):
        """Images of new latents."""
        latents = draws.fold_in(Purpose.LATENTS).normal(self.latent_dim)
        images, _ = self.generator.stateless_call(
            weights, [], latents, draws=draws.fold_in(Purpose.GENERATOR_NOISE)
        )
        return images  # (B, H, W, C)

    def _real_mean_body(self, weights, real, seed, start, total):
        draws = Draws(seed, real.shape[0], start, total).fold_in(Purpose.REAL)
        return tf.reduce_mean(self._judge(weights, real, draws))

    def _discriminator_body(
        self, generator, weights, real, seed, start, total, real_mean, scale
    ):
        """Returns the gradients of the discriminator's loss, and logs."""
        draws = Draws(seed, real.shape[0], start, total)
        fake = tf.stop_gradient(self._generate(generator, draws))
        loss_of = self.adversarial_loss
        with tf.GradientTape() as tape:
            tape.watch(weights)
            real_logits = self._judge(
                weights, real, draws.fold_in(Purpose.REAL)
            )
            fake_logits = self._judge(
                weights, fake, draws.fold_in(Purpose.FAKE)
            )
            loss = loss_of.discriminator(real_logits, fake_logits)
            penalty = self._penalty(weights, real, fake, draws, scale)
            loss += self.penalty_weight * penalty
            if loss_of.has_drift:
                loss += self.drift_weight * drift(real_logits, real_mean)
            enlarged = enlarge(loss, scale)
        logs = {
            "discriminator_loss": loss,
            "penalty": penalty,
            "real_logits": tf.reduce_mean(real_logits),
            "fake_logits": tf.reduce_mean(fake_logits),
        }
        return shrink(tape.gradient(enlarged, weights), scale), logs

    def _penalty(self, weights, real, fake, draws, scale):
        if self.adversarial_loss.penalty is None or not self.penalty_weight:
            return tf.constant(0.0)

        def judge(images):
            inner = draws.fold_in(Purpose.PENALTY)
            return self._judge(weights, images, inner)

        mix = draws.fold_in(Purpose.MIX).uniform(1, 1, 1)  # (B, 1, 1, 1)
        return self.adversarial_loss.penalty(judge, real, fake, mix, scale)

    def _generator_body(
        self, weights, discriminator, seed, start, size, total, scale
    ):
        """Returns the gradients of the generator's loss, and logs."""
        draws = Draws(seed, size, start, total)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            fake = self._generate(weights, draws)
            logits = self._judge(
                discriminator, fake, draws.fold_in(Purpose.FAKE)
            )
            loss = self.adversarial_loss.generator(logits)
            enlarged = enlarge(loss, scale)
        gradients = shrink(tape.gradient(enlarged, weights), scale)
        return gradients, {"generator_loss": loss}


def _after(updates: list):
    """Makes what follows wait for the last update, if there is one.

    The generator does not change between discriminator updates: a graph would
    generate the images of all of them, and begin the generator's own update,
    beside the first, and need the memory of all.
    """
    return tf.control_dependencies([made for _, made, _ in updates[-1:]])


def make_gan(config: Config) -> TransGAN:
    """Builds and compiles what a configuration describes."""
    training = config.training
    policy = training.precision
    if policy != "float32":
        policy = f"mixed_{policy}"

    def optimizer(learning_rate, updates_per_step):
        last = max(training.steps, 1) * updates_per_step
        decay = (round(training.decay_start * last), last)
        return paper_adam(
            learning_rate,
            training.beta_1,
            training.beta_2,
            training.epsilon,
            decay if decay[0] < last else None,
        )

    gan = TransGAN(
        make_generator(config.generator, dtype=policy),
        make_discriminator(config.discriminator, dtype=policy),
    )
    gan.compile(
        optimizer(training.generator_learning_rate, 1),
        optimizer(training.discriminator_learning_rate, training.n_critic),
        loss=training.loss,
        augment=DiffAugment(training.augmentation),
        n_critic=training.n_critic,
        generator_batch_factor=training.generator_batch_factor,
        accumulation=training.accumulation,
        generator_accumulation=training.generator_accumulation,
        penalty_weight=training.penalty_weight,
        drift_weight=training.drift_weight,
        clip_norm=training.clip_norm,
        max_bad_steps=training.max_bad_steps,
        ema_images=training.ema_images,
        ema_warmup=training.ema_warmup,
        ema_beta=training.ema_beta,
        seed=training.seed,
        jit=training.jit,
        rematerialized=config.rematerialized_stages(),
    )
    return gan
