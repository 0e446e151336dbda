"""What a condition leaves of M2Fashion's head, for embedding many stored maps under it.

P does not depend on the condition and T1, T2 do not depend on the image (MODEL.md, "What makes the
head cheap on stored maps"), so under one condition the head is: logits P . u, a softmax over the
cells, a weighted sum (or maximum) of I, and three matrix products. The first half, which reads the
maps, is for a kernel (`indexer/head.py`); the second half is `tail`, and plain torch on any device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.models.channel_attention import ChannelAttention
from training.models.folded_readout import FoldedReadout, normalise_


class Scratch:
    """Memory that `FoldedHead.tail` works in, for chunks of up to `rows` images.

    One a thread; several heads may share it, one after the other.

    Args:
        rows: the longest chunk.
        like: any tensor [*, d] of the head's dtype and device.
    """

    def __init__(self, rows: int, like: Tensor) -> None:
        self._first, self._second = (like.new_empty(rows, like.shape[-1]) for _ in range(2))

    def of(self, rows: int) -> tuple[Tensor, Tensor]:
        """Two blocks [rows, d]."""
        return self._first[:rows], self._second[:rows]


@dataclass(frozen=True)
class FoldedAttention:
    """ASA under one condition: all that the pass over the maps needs.

    Args:
        query: u [d], so that P_l . u is the logit of cell l, the temperature included; None if all
            cells weigh the same (w/o ASA), and P is not needed then.
        squash: whether the logits go through tanh (Eq. 3 to the letter); of the model.
        pooling: V_s is the `mean`, sum_l alpha_l I_l, or the `max` over l of L alpha_l I_l; of the
            model.
    """

    query: Tensor | None
    squash: bool
    pooling: str


@dataclass(frozen=True)
class FoldedHead:
    """The head of a model under one condition.

    Args:
        attention: ASA.
        channel: ACA with T2 folded into the constant of its first layer; None w/o ACA.
        readout: the readout; None if Z is only normalised.
    """

    attention: FoldedAttention
    channel: FoldedChannel | None
    readout: FoldedReadout | None

    def tail(self, attended: Tensor, out: Tensor, scratch: Scratch | None = None) -> Tensor:
        """V_s to embeddings of length 1; no gradient.

        Args:
            attended: V_s [M, d].
            out: [M, d], receives the embeddings; not `attended` itself.
            scratch: memory to work in; new memory by default.

        Returns:
            `out`.
        """
        with torch.inference_mode():
            z, spare = (scratch or Scratch(len(attended), attended)).of(len(attended))
            if self.readout is None:
                z = out
            if self.channel is None:
                z.copy_(attended)
            else:
                self.channel(attended, spare, z)
            if self.readout is None:
                normalise_(z)
            else:
                self.readout(z, spare, out)
            return out


class FoldedChannel:
    """ACA under one condition, Eqs. 7 to 9.

    Args:
        layer: the model's, with W_c1, W_c2 and the output layer.
        embedding: T2 [d].
    """

    def __init__(self, layer: ChannelAttention, embedding: Tensor) -> None:
        dim = len(embedding)
        squeeze, excite, output = layer.squeeze, layer.excite, layer.output
        self.sigmoid = layer.mode == "sigmoid"
        # W_c1 [T2; V_s] = W_c1's right half V_s + a constant.
        self.constant = torch.addmv(squeeze.bias, squeeze.weight[:, :dim], embedding)
        # Views: a product of matrices packs its operands anyhow, and is as fast.
        self.squeeze = squeeze.weight[:, dim:].T
        self.excite, self.excite_bias = excite.weight.T, excite.bias
        self.output, self.output_bias = output.weight.T, output.bias

    def __call__(self, attended: Tensor, spare: Tensor, out: Tensor) -> None:
        """Z before normalisation; all of them [M, d], `spare` and `out` are overwritten."""
        hidden = torch.addmm(self.constant, attended, self.squeeze, out=out)
        hidden = hidden.sigmoid_() if self.sigmoid else hidden.relu_()
        gate = torch.addmm(self.excite_bias, hidden, self.excite, out=spare).sigmoid_()  # alpha^c
        torch.addmm(self.output_bias, gate.mul_(attended), self.output, out=out)
