"""What a condition leaves of the readout: the axes, prototypes and frequencies that it needs.

The same function as `ValueReadout.forward` for one condition, without what does not depend on the
image. The named attributes' axes A [n, d] are taken out of a vector one attribute after another, as
there; over all of them that is I - A^T M A with one small matrix M (a compact WY form).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.models.value_readout import DOUBT, LIKENESS, ValueReadout

SMALLEST = 1e-12
"""A shorter vector is not made longer, as in torch's normalize."""


class FoldedReadout:
    """The readout under one condition that speaks of at least one attribute.

    Args:
        readout: the model's.
        named: numbers of the attributes that the condition speaks of, at least one.
    """

    def __init__(self, readout: ValueReadout, named: list[int]) -> None:
        schema = readout.schema
        slices = [schema.slice_of(number) for number in named]
        self.axes = torch.cat([readout.axes[where] for where in slices])  # A [n, d]
        prototypes = torch.cat([readout.prototypes[where] for where in slices])
        scaled = F.normalize(prototypes, dim=-1) * readout.log_scale.exp()
        self.prototypes = scaled.T  # [d, n]
        self.bias = torch.cat([readout.bias[where] for where in slices])
        self.frequencies = readout.frequencies.T  # [d, d // 2]
        self.share = math.sqrt(1 / len(named))
        # As a rule: there are more dimensions than values (value_readout.py).
        self.orthogonal = len(readout.axes) <= readout.axes.shape[1]
        sizes = [where.stop - where.start for where in slices]
        self.parts = [
            (slice(end - size, end), schema.attributes[number].multi)
            for number, size, end in zip(named, sizes, _ends(sizes), strict=True)
        ]
        if self.orthogonal:
            self.likeness_of_axes = torch.eye(len(self.axes)).to(self.axes)  # A A^T
            self.removal = self.axes.T  # A^T M [d, n]
        else:
            self.likeness_of_axes = self.axes @ self.axes.T
            self.removal = self.axes.T @ _wy(self.likeness_of_axes, sizes)

    def __call__(self, z: Tensor, spare: Tensor, out: Tensor) -> None:
        """Embeddings of length 1.

        Args:
            z: [M, d] of any length; normalised in place.
            spare: [M, d], overwritten.
            out: [M, d], receives the embeddings.
        """
        normalise_(z)
        likely = self._likely(torch.addmm(self.bias, z, self.prototypes))  # [M, n]
        along = likely if self.orthogonal else likely @ self.likeness_of_axes
        length = (along * likely).sum(-1, keepdim=True)
        doubt = (1 - length).clamp_(min=0).sqrt_().mul_(DOUBT)
        half = self.frequencies.shape[1]
        angles = spare.view(-1)[: len(z) * half].view(len(z), half)
        torch.mm(z, self.frequencies, out=angles)
        torch.cos(angles, out=out[:, :half])
        torch.sin(angles, out=out[:, half : 2 * half])
        out[:, 2 * half :] = 0  # d may be odd
        out.mul_(doubt.mul_(1 / math.sqrt(half))).add_(z, alpha=LIKENESS)
        # The axes are for what is known: out - out A^T M A + p A.
        out.addmm_(likely.addmm_(out, self.removal, alpha=-1), self.axes)
        normalise_(out)

    def _likely(self, logits: Tensor) -> Tensor:
        """sqrt(share) of the probabilities of the values, in place: [M, n] -> [M, n]."""
        for where, multi in self.parts:
            own = logits[:, where]
            if multi:
                own.sigmoid_()
                own.mul_(self.share / own.sum(-1, keepdim=True))  # of one of them, drawn
            else:
                own.copy_(own.softmax(-1).mul_(self.share))
        return logits


def normalise_(rows: Tensor) -> None:
    """Give rows [M, d] length 1, in place; a row of zeros stays one."""
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    rows.mul_(lengths.clamp_(min=SMALLEST).reciprocal_())


def _ends(sizes: list[int]) -> list[int]:
    return [sum(sizes[: number + 1]) for number in range(len(sizes))]


def _wy(likeness: Tensor, sizes: list[int]) -> Tensor:
    """M [n, n] with I - A^T M A the product of the attributes' I - A_i^T A_i in their order."""
    later = torch.zeros_like(likeness)  # A A^T above the diagonal blocks
    for size, end in zip(sizes, _ends(sizes), strict=True):
        later[end - size : end, end:] = likeness[end - size : end, end:]
    unit = torch.eye(len(likeness), dtype=likeness.dtype, device=likeness.device)
    inverse: Tensor = torch.linalg.solve_triangular(
        unit + later, unit, upper=True, unitriangular=True
    )
    return inverse
