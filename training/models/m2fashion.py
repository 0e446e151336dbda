"""M2Fashion: an image embedding conditioned on attribute labels, as MODEL.md settles the paper.

    x --backbone, pool--> F --1x1 convolution--> I         features(images): knows no condition
    I, A --ASA--> V_s --ACA--> V_c --Eq. 9, readout--> Z   attend(I, A): cheap, once a condition

Wan et al., Learning Image Representation via Attribute-Aware Attention Networks for Fashion
Classification (MMM 2022). Where the default differs from the paper a class says so; the variant
`paper` of `config.py` is the equations to the letter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.models.embedder import ConditionedEmbedder, Seen
from training.schema import Schema


class M2Fashion(ConditionedEmbedder):
    """Spatial, then channel attention, each steered by the label states of a condition."""

    architecture = "m2fashion"
    title = "M2Fashion"
    paper = "Wan et al., MMM 2022"
    sees_values = True

    def build(self, channels: int) -> None:
        """The 1x1 reduction to I [B, d, H, W], T1, T2, ASA and ACA."""
        config = self.config
        self.reduce = nn.Conv2d(channels, config.dim, 1)
        self.spatial_embedding = AttributeEmbedding(self.schema, config.dim, config.embedding)  # T1
        self.channel_embedding = AttributeEmbedding(self.schema, config.dim, config.embedding)  # T2
        self.spatial = SpatialAttention(config.dim, config.spatial, config.pooling)
        self.channel = ChannelAttention(config.dim, config.channel)

    def keys(self, maps: Tensor) -> Tensor:
        """P = tanh(W_v1 I), the condition-free half of the attention: [B, d, H, W] likewise."""
        return self.spatial.keys(maps)

    def see(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Seen:
        """V_s and Z before normalisation, of I [B, d, H, W] under conditions [B or 1, C, K]."""
        keys = self.keys(maps) if keys is None else keys
        attended = self.spatial(maps, keys, self.spatial_embedding(conditions))
        return Seen(attended, self.channel(attended, self.channel_embedding(conditions)))

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation [B, C, d]; arguments as for `see`."""
        return self.see(maps, conditions, keys).z

    def attention(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The spatial attention map alpha [B, H, W] under a condition [B or 1, K]; sums to 1."""
        keys = self.keys(maps) if keys is None else keys
        alpha = self.spatial.weights(keys, self.spatial_embedding(condition.unsqueeze(1)))
        return alpha.reshape(maps.shape[0], *maps.shape[2:])


class AttributeEmbedding(nn.Module):
    """T = f(A), Eq. 1 (T1, for ASA) and Eq. 6 (T2, for ACA): condition [*, K] -> [*, d].

    Differs from the paper, whose `tanh(W A)` is mode `paper`: in mode `tables` +1 and -1 have
    tables of their own, each averaged over its count, and there is a bias. With W A alone the
    hundreds of known negatives of a large schema swamp the few positives, and the all-unknown
    condition is exactly zero, which switches attention off.
    """

    def __init__(self, schema: Schema, dim: int, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.positive = nn.Parameter(self._start(schema, dim))
        if mode == "tables":
            self.negative = nn.Parameter(-self._start(schema, dim))
            self.bias = nn.Parameter(torch.randn(dim) * 0.5)

    @staticmethod
    def _start(schema: Schema, dim: int) -> Tensor:
        """Rows of one attribute near each other, lest a type condition's mean be washed out."""
        types = torch.randn(len(schema.attributes), dim)
        owner = torch.from_numpy(schema.attribute_of)
        return 0.7 * types[owner] + 0.3 * torch.randn(schema.size, dim)

    def forward(self, condition: Tensor) -> Tensor:
        """Label states [*, K] float in {-1, 0, +1} -> T [*, d] in (-1, 1)."""
        if self.mode == "paper":
            return torch.tanh(condition @ self.positive)
        known = (condition > 0).to(condition.dtype)
        unwanted = (condition < 0).to(condition.dtype)
        mean_known = known @ self.positive / known.sum(-1, keepdim=True).clamp(min=1)
        mean_unwanted = unwanted @ self.negative / unwanted.sum(-1, keepdim=True).clamp(min=1)
        return torch.tanh(mean_known + mean_unwanted + self.bias)


class SpatialAttention(nn.Module):
    """ASA, attribute-aware spatial attention, Eqs. 2-5.

    Differs from the paper: logits are scaled by a learned temperature instead of squashed by tanh,
    and V_s is the mean of the weighted map, which is Eq. 5, or its maximum. P does not depend on
    the condition, so the logits of each cost one matrix-vector product: s_l = P_l . (w_v2 * T1).
    For `mode` and `pooling` see `spatial` and `pooling` of `ModelConfig`.
    """

    def __init__(self, dim: int, mode: str, pooling: str) -> None:
        super().__init__()
        self.mode = mode
        self.pooling = pooling
        if mode != "none":
            self.key = nn.Conv2d(dim, dim, 1)  # W_v1
            self.query = nn.Parameter(torch.randn(dim) / math.sqrt(dim))  # w_v2
        if mode == "temperature":
            self.log_temperature = nn.Parameter(torch.tensor(math.log(2.0)))

    def keys(self, maps: Tensor) -> Tensor:
        """P = tanh(W_v1 I): [B, d, H, W] -> [B, d, H, W]; without ASA the maps themselves."""
        if self.mode == "none":
            return maps
        return torch.tanh(self.key(maps))  # Eq. 2

    def weights(self, keys: Tensor, embedding: Tensor) -> Tensor:
        """alpha [B, C, H * W], Eqs. 3 and 4, of P [B, d, H, W] and T1 [B or 1, C, d].

        Each row sums to 1; uniform without ASA.
        """
        batch, _, height, width = keys.shape
        if self.mode == "none":
            return keys.new_full((batch, embedding.shape[1], height * width), 1 / (height * width))
        u = embedding * self.query  # w_v2 * T1
        logits = u @ keys.flatten(2)  # s [B, C, L]
        if self.mode == "tanh":
            return torch.tanh(logits).softmax(-1)
        return (logits * self.log_temperature.exp()).softmax(-1)

    def forward(self, maps: Tensor, keys: Tensor, embedding: Tensor) -> Tensor:
        """V_s [B, C, d] from I [B, d, H, W], P [B, d, H, W] and T1 [B or 1, C, d]."""
        flat = maps.flatten(2)  # I [B, d, L]
        alpha = self.weights(keys, embedding)
        if self.pooling == "mean":
            # The mean over l of alpha_l I_l H W is the weighted sum of Eq. 5.
            return alpha @ flat.transpose(1, 2)
        if self.mode == "none":
            return flat.amax(-1).unsqueeze(1).expand(-1, embedding.shape[1], -1)
        # alpha_l I_l, times H W so that its scale stays that of I.
        return weighted_max(flat, alpha * flat.shape[-1])


def weighted_max(flat: Tensor, weights: Tensor) -> Tensor:
    """max over l of weights_l flat_l: [B, d, L], [B, C, L] -> [B, C, d].

    With a gradient asked for, it goes through the first maximal location alone, and no
    [B, C, d, L] is kept for it.
    """
    if not (torch.is_grad_enabled() and (flat.requires_grad or weights.requires_grad)):
        return (weights.unsqueeze(2) * flat.unsqueeze(1)).amax(-1)
    with torch.no_grad():
        best = [(flat * weights[:, c, None]).argmax(-1) for c in range(weights.shape[1])]
    where = torch.stack(best, 1)  # [B, C, d]
    return weights.gather(2, where) * flat.gather(2, where.transpose(1, 2)).transpose(1, 2)


class ChannelAttention(nn.Module):
    """ACA, attribute-aware channel attention, Eqs. 7 and 8, and the last layer, Eq. 9.

    Differs from the paper: the inner activation is ReLU, as in ASEN; mode `sigmoid` is Eq. 7 to
    the letter, `none` leaves Z = V_s, without Eq. 9.
    """

    def __init__(self, dim: int, mode: str) -> None:
        super().__init__()
        self.mode = mode
        if mode != "none":
            self.squeeze = nn.Linear(2 * dim, dim)  # W_c1
            self.excite = nn.Linear(dim, dim)  # W_c2
            self.output = nn.Linear(dim, dim)  # W, b of Eq. 9

    def forward(self, attended: Tensor, embedding: Tensor) -> Tensor:
        """V_s [B, C, d] and T2 [B or 1, C, d] -> Z [B, C, d], not normalised."""
        if self.mode == "none":
            return attended
        both = torch.cat([embedding.expand_as(attended), attended], -1)  # [T2; V_s]
        hidden = self.squeeze(both)
        hidden = torch.sigmoid(hidden) if self.mode == "sigmoid" else torch.relu(hidden)
        gate = torch.sigmoid(self.excite(hidden))  # alpha^c, Eq. 7
        return self.output(gate * attended)  # type: ignore[no-any-return]  # Eqs. 8, 9
