"""Recognizing a VGG by its structure, whatever its nodes and values are called.

A VGG is a chain: 3x3 convolutions of stride 1 that keep the size, each followed by a Relu (with a BatchNormalization
before it or not), with 2x2 pools between its blocks. Dense layers may follow. VGG-16 and VGG-19 differ in the number of
convolutions in a block only, so the chain may have any, and may end anywhere. A 1x1 convolution of three channels in
front of the chain is the preprocessing that AdaIN's network begins with.

`Vgg.values` gives the values of the chain the names of the literature: `conv3_1` is the first convolution of the third
block, `relu3_1` its Relu, `pool3` the pool behind that block; `fc6`, `relu6`, `fc7`, `relu7` and `fc8` are the dense
layers.
"""

from onnxnorm.vgg.chain import Chain, Padding, adds_zeros, pads_itself, pads_of, same_padding
from onnxnorm.vgg.reading import read_vgg
from onnxnorm.vgg.structure import Dense, Layer, NoVgg, Vgg

__all__ = [
    "Chain",
    "Dense",
    "Layer",
    "NoVgg",
    "Padding",
    "Vgg",
    "adds_zeros",
    "pads_itself",
    "pads_of",
    "read_vgg",
    "same_padding",
]
