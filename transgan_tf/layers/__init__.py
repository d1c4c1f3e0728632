"""Keras layers of the networks; see each module."""

from transgan_tf.layers.attention import AttentionNoise
from transgan_tf.layers.attention import GridSelfAttention
from transgan_tf.layers.attention import MultiHeadAttention
from transgan_tf.layers.axis import AxisSelfAttention
from transgan_tf.layers.block import TransformerBlock
from transgan_tf.layers.norm import LayerNorm
from transgan_tf.layers.norm import TokenScaling
from transgan_tf.layers.nystrom import NystromSelfAttention
from transgan_tf.layers.position import ClassToken
from transgan_tf.layers.position import PositionEmbedding
from transgan_tf.layers.position import RelativePosition
from transgan_tf.layers.reshape import PatchEmbedding
from transgan_tf.layers.reshape import TokenPooling
from transgan_tf.layers.reshape import Upsampling

__all__ = [
    "AttentionNoise",
    "AxisSelfAttention",
    "ClassToken",
    "GridSelfAttention",
    "LayerNorm",
    "MultiHeadAttention",
    "NystromSelfAttention",
    "PatchEmbedding",
    "PositionEmbedding",
    "RelativePosition",
    "TokenPooling",
    "TokenScaling",
    "TransformerBlock",
    "Upsampling",
]
