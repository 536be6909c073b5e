"""Building blocks shared by the model families: plain torch modules and functions."""

from diptych.nn.attention import Attention, AttentionPlaces, Side, attention_places, capture_attention
from diptych.nn.coattention import BoxedRegions, CoEncoder, CoLayer, FusedPool, Sizes
from diptych.nn.decoder import Decoder, Seen
from diptych.nn.embeddings import TextEmbedding
from diptych.nn.fusion import FusionHead, Towers, VectorHead, fuse, fused_dim, mapping, require_rates, stack
from diptych.nn.heads import ClassifierHead
from diptych.nn.init import init_bert, initial_std
from diptych.nn.int8 import Int8Linear, to_int8
from diptych.nn.mobilenet import MobileNet, efficientnet_lite0, mobilenet_v2
from diptych.nn.neighbors import nearest_cases, votes
from diptych.nn.prenorm import AttentionPool, PreNormEncoder, PreNormLayer
from diptych.nn.prompts import JointImage, PromptHead, prompt_vectors
from diptych.nn.readout import FirstToken, LayerAverage, PairAttention, Pooled, Readout, before_end
from diptych.nn.resnet import ResNet, resnet50, resnet101, resnet152, resnet_tiny
from diptych.nn.towers import ImageTower, TextTower
from diptych.nn.transformer import CrossLayer, Encoder, FeedForward, Layer, checkpointed
from diptych.nn.weight_norm import WeightNormHead, WeightNormLinear

__all__ = [
    "Attention",
    "AttentionPlaces",
    "AttentionPool",
    "BoxedRegions",
    "ClassifierHead",
    "CoEncoder",
    "CoLayer",
    "CrossLayer",
    "Decoder",
    "Encoder",
    "FeedForward",
    "FirstToken",
    "FusedPool",
    "FusionHead",
    "ImageTower",
    "Int8Linear",
    "JointImage",
    "Layer",
    "LayerAverage",
    "MobileNet",
    "PairAttention",
    "Pooled",
    "PreNormEncoder",
    "PreNormLayer",
    "PromptHead",
    "Readout",
    "ResNet",
    "Seen",
    "Side",
    "Sizes",
    "TextEmbedding",
    "TextTower",
    "Towers",
    "VectorHead",
    "WeightNormHead",
    "WeightNormLinear",
    "attention_places",
    "before_end",
    "capture_attention",
    "checkpointed",
    "efficientnet_lite0",
    "fuse",
    "fused_dim",
    "init_bert",
    "initial_std",
    "mapping",
    "mobilenet_v2",
    "nearest_cases",
    "prompt_vectors",
    "require_rates",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet_tiny",
    "stack",
    "to_int8",
    "votes",
]
