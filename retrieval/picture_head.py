"""The folded head for one picture on a CPU, in numpy.

The same function as `embed_folded` (picture.py), for queries that a view answers in a fraction of a
millisecond: numpy starts an operation in a third of torch's time and leaves no threads spinning,
which a search would wait for. Weights are the model's own memory.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from retrieval.picture import Picture
from training.models.folded_head import FoldedChannel, FoldedHead
from training.models.folded_readout import SMALLEST, FoldedReadout
from training.models.value_readout import DOUBT, LIKENESS

Vector = NDArray[np.float32]


class PictureHead:
    """Z of a picture under one condition.

    Args:
        head: the model's, folded under the condition; on the CPU, in float32.
    """

    def __init__(self, head: FoldedHead) -> None:
        attention = head.attention
        self._query = None if attention.query is None else _array(attention.query)
        self._squash, self._largest = attention.squash, attention.pooling == "max"
        self._channel = None if head.channel is None else _Channel(head.channel)
        self._readout = None if head.readout is None else _Readout(head.readout)

    def __call__(self, picture: Picture) -> Vector:
        """Z [d] float32, of length 1."""
        z = self._attended(_cells(picture.maps), picture)
        if self._channel is not None:
            z = self._channel(z)
        z = _normalised(z)
        return z if self._readout is None else self._readout(z)

    def _attended(self, cells: Vector, picture: Picture) -> Vector:
        """V_s [d] of I [L, d]."""
        if self._query is None:
            alpha = np.full(len(cells), 1 / len(cells), dtype=cells.dtype)
        else:
            logits = _cells(picture.keys) @ self._query  # P_l . u
            alpha = _softmax(np.tanh(logits) if self._squash else logits)
        if self._largest:
            largest: Vector = (cells * (alpha * len(cells))[:, None]).max(0)
            return largest
        return alpha @ cells


class _Channel:
    """ACA, as `FoldedChannel`."""

    def __init__(self, channel: FoldedChannel) -> None:
        self._sigmoid, self._constant = channel.sigmoid, _array(channel.constant)
        self._squeeze, self._excite = _array(channel.squeeze), _array(channel.excite)
        self._output, self._excite_bias = _array(channel.output), _array(channel.excite_bias)
        self._output_bias = _array(channel.output_bias)

    def __call__(self, attended: Vector) -> Vector:
        hidden: Vector = attended @ self._squeeze + self._constant
        hidden = _sigmoid(hidden) if self._sigmoid else np.maximum(hidden, 0, out=hidden)
        gate = _sigmoid(hidden @ self._excite + self._excite_bias)  # alpha^c
        gate *= attended
        z: Vector = gate @ self._output + self._output_bias
        return z


class _Readout:
    """The readout, as `FoldedReadout`."""

    def __init__(self, readout: FoldedReadout) -> None:
        self._prototypes, self._bias = _array(readout.prototypes), _array(readout.bias)
        self._axes, self._removal = _array(readout.axes), _array(readout.removal)
        self._likeness_of_axes = None
        if not readout.orthogonal:
            self._likeness_of_axes = _array(readout.likeness_of_axes)
        self._frequencies = _array(readout.frequencies)
        self._parts, self._share = readout.parts, readout.share

    def __call__(self, z: Vector) -> Vector:
        likely = z @ self._prototypes + self._bias
        for where, multi in self._parts:
            if multi:
                chances = _sigmoid(likely[where])
                likely[where] = chances * (self._share / float(chances.sum()))
            else:
                likely[where] = _softmax(likely[where]) * self._share
        along = likely if self._likeness_of_axes is None else likely @ self._likeness_of_axes
        doubt = DOUBT * math.sqrt(max(1 - float(along @ likely), 0))
        angles = z @ self._frequencies
        half = len(angles)
        out = np.zeros_like(z)  # d may be odd
        np.cos(angles, out=out[:half])
        np.sin(angles, out=out[half : 2 * half])
        out *= doubt / math.sqrt(half)
        out += LIKENESS * z
        out += (likely - out @ self._removal) @ self._axes  # the axes are for what is known
        return _normalised(out)


def _array(tensor: Tensor) -> Vector:
    array: Vector = tensor.detach().numpy()
    return array


def _cells(maps: Tensor) -> Vector:
    """[1, d, H, W] -> [L, d]; a view of maps that lie channels-last, as encoded ones do."""
    cells: Vector = maps.numpy()[0].transpose(1, 2, 0).reshape(-1, maps.shape[1])
    return cells


def _sigmoid(x: Vector) -> Vector:
    with np.errstate(over="ignore"):  # 1 / inf is the 0 that is meant
        chances: Vector = np.exp(-x)
    chances += 1
    return np.reciprocal(chances, out=chances)


def _softmax(x: Vector) -> Vector:
    shares: Vector = np.exp(x - x.max())
    shares /= shares.sum()
    return shares


def _normalised(x: Vector) -> Vector:
    unit: Vector = x / max(math.sqrt(float(x @ x)), SMALLEST)
    return unit
