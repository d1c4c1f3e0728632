"""The ablation's attentions against standard attention and plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tests.test_layers import close
from tests.test_layers import filled
from tests.test_layers import normal
from tests.test_layers import plain_attention
from tests.test_layers import softmax
from tests.tiny import tiny_discriminator
from tests.tiny import tiny_generator
from transgan_tf.checked import from_dict
from transgan_tf.discriminator import Discriminator
from transgan_tf.layers import AxisSelfAttention
from transgan_tf.layers import GridSelfAttention
from transgan_tf.layers import MultiHeadAttention
from transgan_tf.layers import NystromSelfAttention
from transgan_tf.layers import RelativePosition
from transgan_tf.layers import TransformerBlock
from transgan_tf.layers.block import make_blocks
from transgan_tf.layers.nystrom import pseudo_inverse
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import Stage


def moderate(layer, input_shape):
    """Builds a layer with weights that a second attention can bear."""
    layer = filled(layer, input_shape)
    layer.set_weights([0.4 * weight for weight in layer.get_weights()])
    return layer


def same_weights(layer, other, input_shape):
    """Builds two layers whose weights are alike in number and shape."""
    filled(layer, input_shape)
    other.build(input_shape)
    other.set_weights(layer.get_weights())
    return layer, other


def test_grid_of_one_window_is_standard_attention():
    x = normal(2, 25, 21)
    grid, plain = same_weights(
        GridSelfAttention(3, 5, 5, 5), MultiHeadAttention(3, 5), x.shape
    )
    assert (np.asarray(grid(x)) == np.asarray(plain(x))).all()


def test_standard_is_the_grid_of_one_window_whatever_the_window():
    x = normal(2, 36, 15)
    grid, standard = same_weights(
        TransformerBlock(3, 6),
        TransformerBlock(3, 6, window=2, attention="standard"),
        x.shape,
    )
    assert (np.asarray(grid(x)) == np.asarray(standard(x))).all()


# === Nyström ===


def test_as_many_landmarks_as_tokens_give_standard_attention():
    x = normal(2, 14, 15) * 0.3
    plain = filled(MultiHeadAttention(3), x.shape)
    gaps = []
    # Long after it has converged, float32's rounding grows again.
    for iterations in (2, 6, 20):
        layer = NystromSelfAttention(3, 14, iterations)
        layer.build(x.shape)
        layer.set_weights(plain.get_weights())
        gaps.append(np.abs(layer(x) - plain(x)).max())
    size = np.abs(plain(x)).max()
    # The pseudo-inverse converges, to float32's precision.
    assert gaps[0] > 10 * gaps[2] and gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-4 * size


@pytest.mark.parametrize("iterations", [1, 6])
def test_nystrom_against_numpy(iterations):
    heads, tokens, landmarks, depth = 3, 28, 4, 5
    x = normal(2, tokens, heads * depth) * 0.5
    layer = NystromSelfAttention(heads, landmarks, iterations)
    layer = filled(layer, x.shape)
    qkv, projection, bias = (np.asarray(w, "float64") for w in layer.weights)
    mixed = np.zeros_like(x)
    for b, h in np.ndindex(2, heads):
        query, key, value = (
            x[b] @ qkv[:, (part * heads + h) * depth :][:, :depth]
            for part in range(3)
        )
        means = [
            np.stack([part[7 * n : 7 * n + 7].mean(axis=0) for n in range(4)])
            for part in (query, key)
        ]
        root = depth**0.5
        among = softmax(means[0] @ means[1].T / root)
        inverse = iterate(among, iterations)
        weights = softmax(query @ means[1].T / root) @ inverse
        weights = weights @ softmax(means[0] @ key.T / root)
        mixed[b][:, h * depth : (h + 1) * depth] = weights @ value
    close(layer(x), mixed @ projection + bias, 1e-4)


def iterate(matrix, iterations):
    """The pseudo-inverse as the Nyströmformer paper writes it down."""
    one = np.eye(len(matrix))
    z = matrix.T / np.abs(matrix).sum(0).max() / np.abs(matrix).sum(1).max()
    for _ in range(iterations):
        az = matrix @ z
        z = z @ (13 * one - az @ (15 * one - az @ (7 * one - az))) / 4
    return z


def test_pseudo_inverse_converges_to_that_of_moore_and_penrose():
    matrices = normal(2, 3, 5, 5)
    # Without an inverse.
    matrices[1, 2, :, 4] = matrices[1, 2, :, 0]
    found = pseudo_inverse(tf.constant(matrices), 30)
    close(found, np.linalg.pinv(matrices.astype("float64"), rcond=1e-4), 1e-3)


def test_pseudo_inverse_by_hand():
    # The norms are 4 and 4: 16 divides the transposed; its product with the
    # matrix is I / 4, and 13 - (15 - (7 - 1/4) / 4) / 4 is 617/64.
    matrix = tf.constant([[0.0, 4.0], [4.0, 0.0]]) / 2
    found = pseudo_inverse(matrix * 2, 0)
    close(found, [[0.0, 0.25], [0.25, 0.0]])
    # Already the inverse: 13 - (15 - (7 - 1)) = 4 leaves it as it is.
    close(pseudo_inverse(matrix * 2, 1), found)


def test_nystrom_refuses_segments_of_unequal_length():
    with pytest.raises(ValueError, match="divide the 10 tokens, got 4"):
        NystromSelfAttention(3, 4).build((None, 10, 15))


# === Axis ===


def masked(x, attention, lines):
    """Standard attention in float64 of tokens of the same line alone.

    Args:
        x: tokens.
        attention: a `MultiHeadAttention` of lines.
        lines: for each token its line and its place there.
    """
    weights = attention.qkv.kernel, *attention.projection.weights
    qkv, projection, bias = (np.asarray(w, "float64") for w in weights)
    table = np.zeros((99, attention.heads))
    if attention.window is not None:
        table = np.asarray(attention.relative_position.table)
    count = len(lines)
    position = np.full((attention.heads, count, count), -np.inf)
    for (q, (one, place)), (k, (other, there)) in (
        (a, b) for a in enumerate(lines) for b in enumerate(lines)
    ):
        if one == other:
            row = place - there + (len(table) - 1) // 2
            position[:, q, k] = table[row]
    return plain_attention(x, qkv, projection, bias, attention.heads, position)


@pytest.mark.parametrize("relative_position", [True, False])
def test_axis_is_masked_attention_of_rows_then_of_columns(relative_position):
    height, width = 3, 5
    x = normal(2, height * width, 21) * 0.5
    layer = AxisSelfAttention(3, height, width, relative_position)
    layer = moderate(layer, x.shape)
    places = [divmod(n, width) for n in range(height * width)]
    expected = masked(x.astype("float64"), layer.rows, places)
    expected = masked(expected, layer.columns, [(c, y) for y, c in places])
    close(layer(x), expected, 1e-4)


def test_axis_sees_the_whole_map():
    x = normal(1, 15, 9)
    layer = moderate(AxisSelfAttention(3, 3, 5), x.shape)
    moved = x.copy()
    moved[0, 7] += 1.0
    change = np.abs(layer(moved) - layer(x)).max(axis=-1)
    assert (change > 1e-4).all()


def test_relative_position_of_a_line_by_hand():
    layer = filled(RelativePosition(3, 2, dimensions=1), (None, 2, 3, 3))
    assert layer.table.shape == (5, 2)
    bias = layer(np.zeros((1, 2, 3, 3), "float32")).numpy()[0]
    table = np.asarray(layer.table)
    # Query at 0, key at 2: -2, the first row; the other way round the last.
    close(bias[:, 0, 2], table[0])
    close(bias[:, 2, 0], table[4])
    close(bias[:, 1, 1], table[2])
    with pytest.raises(ValueError, match="window of 3 has 3 tokens"):
        RelativePosition(3, 2, dimensions=1).build((None, 2, 9, 9))


# === The second derivative ===


def test_the_penaltys_gradient_is_its_slope_also_under_xla():
    x = tf.constant(normal(2, 6, 4) * 0.5)
    layer = moderate(NystromSelfAttention(2, 3, iterations=2), x.shape)
    weights = [weight.value for weight in layer.weights]
    ways = [tf.constant(normal(*w.shape, seed=9)) for w in weights]

    def penalty(weights):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, _ = layer.stateless_call(weights, [], x)
            y = tf.reduce_sum(tf.sin(y))
        return tf.reduce_sum(tape.gradient(y, x) ** 2)

    @tf.function(jit_compile=True)
    def slope(weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = penalty(weights)
        gradients = tape.gradient(value, weights)
        return [tf.convert_to_tensor(gradient) for gradient in gradients]

    step = 3e-3
    there, back = (
        penalty([w + s * way for w, way in zip(weights, ways, strict=True)])
        for s in (step, -step)
    )
    expected = float(there - back) / (2 * step)
    found = sum(
        float(tf.reduce_sum(gradient * way))
        for gradient, way in zip(slope(weights), ways, strict=True)
    )
    assert abs(found - expected) < 0.01 * abs(expected)


# === Configurations ===


def test_attention_replaces_that_of_the_stages_above():
    config = GeneratorConfig(
        (
            Stage(32, 16, 1),
            Stage(64, 4, 3, global_blocks=1, upsample="pixel_shuffle"),
        ),
        heads=2,
        attention="axis",
    )
    assert [config.attention_of(s) for s in config.stages] == ["grid", "axis"]
    shared = ("fan_in_uniform", "float32")
    low, high = (make_blocks(config, s, *shared) for s in config.stages)
    assert type(low[0].attention) is GridSelfAttention
    assert [type(b.attention) for b in high] == [AxisSelfAttention] * 3
    assert tiny_generator().attention_of(Stage(256, 4, 1)) == "grid"


@pytest.mark.parametrize(
    ("attention", "scores"),
    [
        ("grid", (2 * 144 * 9, 2 * 144 * 144)),
        ("standard", (2 * 144 * 144,) * 2),
        ("axis", (2 * 144 * 24,) * 2),
        ("nystrom", (2 * (2 * 144 * 16 + 25 * 16**2),) * 2),
    ],
)
def test_scores_of_an_image(attention, scores):
    stage = Stage(12, 8, 2, window=3, global_blocks=1)
    config = GeneratorConfig(
        (stage,), heads=2, attention=attention, attention_above=0, landmarks=16
    )
    assert config.attention_scores(stage) == scores


def test_a_configuration_from_before_the_switches_is_read():
    new = {"attention", "attention_above", "landmarks", "multi_scale"}
    config = tiny_discriminator()
    values = {k: getattr(config, k) for k in vars(config) if k not in new}
    assert len(values) == len(vars(config)) - 4
    assert from_dict(type(config), values) == config
    assert config.attention == "grid" and config.multi_scale


def test_a_discriminator_of_one_scale_pools_alone():
    stages = (Stage(6, 4, 0), Stage(3, 4, 0))
    config = tiny_discriminator(stages=stages, heads=1, multi_scale=False)
    network = Discriminator(config)
    network.build((None, 12, 12, 3))
    first, second = network.stages
    assert second.patches is None
    images = normal(2, 12, 12, 3)
    x = first(images).numpy()
    pooled = x.reshape(2, 3, 2, 3, 2, 4).mean(axis=(2, 4)).reshape(2, 9, 4)
    found = second(images, x=x) - second.position.embedding
    np.testing.assert_allclose(found, pooled, atol=1e-6)
