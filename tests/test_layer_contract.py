"""Every exported layer passes the shared contract."""

import pytest

import transgan_tf.layers as layers
from tests.layer_contract import POLICIES
from tests.layer_contract import LayerContract

# Each axis has a size of its own.
CONTRACTS = {
    "AttentionNoise": LayerContract(
        layers.AttentionNoise, {}, (2, 5, 7), (2, 5, 7), takes_draws=True
    ),
    "AxisSelfAttention": LayerContract(
        layers.AxisSelfAttention,
        {
            "heads": 3,
            "height": 2,
            "width": 5,
            "relative_position": True,
            "initialization": "normal",
        },
        (3, 10, 15),
        (3, 10, 15),
    ),
    "ClassToken": LayerContract(layers.ClassToken, {}, (2, 5, 7), (2, 6, 7)),
    "GridSelfAttention": LayerContract(
        layers.GridSelfAttention,
        {
            "heads": 3,
            "height": 4,
            "width": 6,
            "window": 2,
            "relative_position": True,
            "initialization": "normal",
        },
        (2, 24, 15),
        (2, 24, 15),
    ),
    "LayerNorm": LayerContract(
        layers.LayerNorm, {"epsilon": 1e-3}, (2, 5, 7), (2, 5, 7)
    ),
    "MultiHeadAttention": LayerContract(
        layers.MultiHeadAttention,
        {
            "heads": 5,
            "window": 3,
            "initialization": "normal",
            "dimensions": 2,
        },
        (2, 9, 35),
        (2, 9, 35),
    ),
    "NystromSelfAttention": LayerContract(
        layers.NystromSelfAttention,
        {
            "heads": 3,
            "landmarks": 4,
            "iterations": 5,
            "initialization": "normal",
        },
        (2, 28, 15),
        (2, 28, 15),
    ),
    "PatchEmbedding": LayerContract(
        layers.PatchEmbedding,
        {"patch_size": 3, "embedding_dim": 5},
        (2, 6, 9, 1),
        (2, 6, 5),
    ),
    "PositionEmbedding": LayerContract(
        layers.PositionEmbedding, {}, (2, 5, 7), (2, 5, 7)
    ),
    # Under every policy the softmax that follows is float32.
    "RelativePosition": LayerContract(
        layers.RelativePosition,
        {"window": 2, "heads": 3, "dimensions": 2},
        (5, 3, 4, 4),
        (5, 3, 4, 4),
        output_dtype="float32",
    ),
    "TokenPooling": LayerContract(
        layers.TokenPooling,
        {"height": 4, "width": 6},
        (3, 24, 5),
        (3, 6, 5),
    ),
    "TokenScaling": LayerContract(
        layers.TokenScaling, {"epsilon": 1e-3}, (2, 5, 7), (2, 5, 7)
    ),
    "TransformerBlock": LayerContract(
        layers.TransformerBlock,
        {
            "heads": 3,
            "resolution": 4,
            "window": 2,
            "mlp_ratio": 2,
            "norm": "layer_norm",
            "relative_position": True,
            "attention_noise": True,
            "initialization": "fan_in_uniform",
            "attention": "grid",
            "landmarks": 8,
        },
        (2, 16, 15),
        (2, 16, 15),
        takes_draws=True,
    ),
    "Upsampling": LayerContract(
        layers.Upsampling,
        {"kind": "pixel_shuffle", "height": 2, "width": 3},
        (5, 6, 28),
        (5, 24, 7),
    ),
}
# The same layers, built otherwise.
VARIANTS = {
    "GridSelfAttention-global": LayerContract(
        layers.GridSelfAttention,
        {
            "heads": 3,
            "height": 3,
            "width": 3,
            "window": 3,
            "relative_position": False,
        },
        (2, 9, 15),
        (2, 9, 15),
    ),
    "MultiHeadAttention-plain": LayerContract(
        layers.MultiHeadAttention, {"heads": 3}, (2, 7, 15), (2, 7, 15)
    ),
    "TransformerBlock-plain": LayerContract(
        layers.TransformerBlock,
        {"heads": 3, "norm": "token_scaling", "initialization": "normal"},
        (2, 7, 15),
        (2, 7, 15),
    ),
    "TransformerBlock-axis": LayerContract(
        layers.TransformerBlock,
        {"heads": 3, "resolution": 3, "attention": "axis"},
        (2, 9, 15),
        (2, 9, 15),
    ),
    "Upsampling-bicubic": LayerContract(
        layers.Upsampling,
        {"kind": "bicubic", "height": 2, "width": 3},
        (5, 6, 7),
        (5, 24, 7),
    ),
}
each = pytest.mark.parametrize(
    "contract",
    [pytest.param(c, id=n) for n, c in (CONTRACTS | VARIANTS).items()],
)


def test_every_exported_layer_is_listed():
    assert set(CONTRACTS) == set(layers.__all__)
    for name, contract in CONTRACTS.items():
        assert contract.layer is getattr(layers, name)


@each
def test_config(contract):
    contract.check_config()


@each
def test_build(contract):
    contract.check_build()


@each
def test_calls(contract):
    contract.check_calls()


@pytest.mark.parametrize("policy", POLICIES)
@each
def test_policy(contract, policy):
    contract.check_policy(policy)


@each
def test_saving(contract, tmp_path):
    contract.check_saving(tmp_path)


@each
def test_gradients(contract):
    contract.check_gradients()
