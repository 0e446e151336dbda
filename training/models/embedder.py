"""What all models have in common: a backbone, an embedding conditioned on attributes, two heads.

    x --backbone, pool--> F --reduce--> I      features(images): knows no condition
    I, A --> Z                                 attend(I, A): cheap, once a condition

M2Fashion and the models it is compared with differ in `reduce`, `keys` and `attend_raw` alone, so
one trainer, one bank of stored maps and one evaluation serve them all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.descriptor import DescriptorLayout
from training.losses import inapplicable
from training.models.backbones import (
    averaged,
    backbone_channels,
    build_backbone,
    channels_below,
    last_stage,
    lower_channels,
    stages_below,
    with_lower_stages,
)
from training.models.config import Freeze, ModelConfig, layout_of
from training.models.nuance import AttributeNuance, GarmentNuance
from training.schema import Attribute, Schema

LABELLED = 50
"""Images that an attribute has to be labelled in for its temperature to be measured."""

FACTORS = [1.02**power for power in range(-80, 81)]
"""That are tried, of logits: 0.2 to 4.9."""


class Seen(NamedTuple):
    """What a model sees of B images under C conditions: Z before normalisation [B, C, d], and what
    nuance is read from beside it: V_s [B, C, d] in M2Fashion, else Z again."""

    attended: Tensor
    z: Tensor


class Given(NamedTuple):
    """What a step knows of its b images beside F, for a model's own losses. A batch that several
    processes share: of this one's share."""

    labels: Tensor  # label states [b, K] float
    category: Tensor  # [b] int64, -1 unknown
    shows: Tensor  # what each picture shows, as in `training/step.py` [b] int64
    # with sampled triplets, the attribute of each image's triplet [b] int64, -1: leave it out; the
    # three images of a triplet follow each other
    attribute: Tensor | None
    landmarks: Tensor | None  # [b, L, 3], see `training/images/landmarks.py`; None: not asked for
    progress: float  # share of the epochs that are done, 0 to below 1
    generator: torch.Generator  # of its draws


class Described(NamedTuple):
    """What a descriptor is made of, for B images: the probability of every value, each under its
    own type condition [B, K] in 0..1, and unit vectors side by side [B, N], see `layout`."""

    chances: Tensor
    nuance: Tensor


class Embedder(Protocol):
    """What the index asks of a model; any `torch.nn.Module` with these members fits."""

    @property
    def schema(self) -> Schema:
        """The K values that chances are given of."""

    @property
    def layout(self) -> DescriptorLayout:
        """What the bytes of its descriptors are."""

    def trunk(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> F, the backbone's output [B, channels, H, W]."""

    def describe(self, trunk: Tensor) -> Described:
        """What descriptors are packed from, of F [B, channels, H, W]."""


class ConditionedEmbedder(nn.Module, ABC):
    """A conditioned embedder with its two multi-task heads; `build_model` makes one.

    `categories` is their number (0: no category head), `weights` are as of `build_backbone`.
    """

    architecture: ClassVar[str]
    """Its name in `ModelConfig` and in the registry."""

    title: ClassVar[str]
    """Its name in tables and prose."""

    paper: ClassVar[str]
    """Who described it, where."""

    reads_below: ClassVar[bool] = False
    """Whether it reads the stage below the last one, and so has `lower_stages` whatever its config
    says."""

    sees_values: ClassVar[bool] = False
    """Whether an embedding depends on the values that a condition names; otherwise only on which
    attributes it speaks of."""

    needs_landmarks: ClassVar[bool] = False
    """Whether it learns from landmarks, and is left out where the data has none."""

    wants_pairs: ClassVar[bool] = False
    """Whether its own losses compare pictures of one item: where items are known, half of a batch
    are other pictures of the other half's."""

    teaches_heads: ClassVar[bool] = False
    """Whether its own losses teach what it says of values and categories, whatever the recipe."""

    reduce: nn.Module
    """F [B, channels, H, W] -> I [B, *, h, w], which knows no condition."""

    def __init__(
        self, schema: Schema, config: ModelConfig, categories: int = 0, weights: str | None = None
    ) -> None:
        super().__init__()
        assert config.architecture == self.architecture, "build_model chooses the class"
        config = self.settled(config)
        self.schema = schema
        self.config = config
        self.dim = config.dim
        self.grid = (config.grid, config.grid)
        self.backbone = build_backbone(config.backbone, config.stage, weights)
        # The heads come last, so that a seed gives the layers the same weights with and without.
        own = backbone_channels(config.backbone, config.stage)
        lower = lower_channels(config.backbone, config.stage) if config.lower_stages else 0
        self.standardise: nn.Module = nn.Identity()
        if lower:  # the stages' scales differ
            self.standardise = nn.BatchNorm2d(lower + own, affine=False)
        self.last_stage = slice(lower, lower + own)
        below = channels_below(config.backbone, config.stage) if lower else 0
        self.below = slice(lower - below, lower)
        self.build(lower + own)
        self.values = ValueReadout(schema, self.dim) if config.readout == "values" else None
        self.category_head = nn.Linear(config.dim, categories) if categories else None
        self.attribute_head = nn.Linear(config.dim, schema.size)
        types = [torch.from_numpy(schema.type_condition(i)) for i in range(len(schema.attributes))]
        types = types or [torch.zeros(0, schema.size)]
        self.register_buffer("type_conditions", torch.stack(types).float(), persistent=False)
        self.type_conditions: Tensor
        self.nuance = AttributeNuance(len(schema.attributes), 2 * config.dim, config.nuance)
        self.garment_nuance = GarmentNuance(lower + own, config.garment_nuance)

    @classmethod
    def settled(cls, config: ModelConfig) -> ModelConfig:
        """A config with what this model has no choice of; the same for one that has it already."""
        return replace(config, lower_stages=True) if cls.reads_below else config

    @abstractmethod
    def build(self, channels: int) -> None:
        """Make `reduce` and the layers between F, of `channels` channels, and Z."""

    @property
    def layout(self) -> DescriptorLayout:
        """What the bytes of this model's descriptors are."""
        return layout_of(self.config, self.schema)

    def keys(self, maps: Tensor) -> Tensor:
        """P, what else of an image does not depend on the condition: [B, *, h, w]; here I."""
        return maps

    @abstractmethod
    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation [B, C, d], of I [B, *, h, w] under label states [B or 1, C, K]
        float; P, if stored, else computed."""

    def own_losses(self, trunk: Tensor, given: Given) -> dict[str, Tensor]:
        """Terms by name, scalars, that are added to those of the recipe as they are: of
        standardised F [b, channels, H, W] in training, channels dropped. Here none.

        A name that is no field of `training.step.Losses`.
        """
        return {}

    def see(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Seen:
        """Z, and what nuance is read from; arguments as for `attend_raw`."""
        z = self.attend_raw(maps, conditions, keys)
        return Seen(z, z)

    def attention(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The spatial attention map alpha [B, H, W] under a condition [B or 1, K]; sums to 1.

        Here uniform: a model that pools by the mean looks at all cells alike.
        """
        height, width = self.grid
        return maps.new_full((maps.shape[0], height, width), 1 / (height * width))

    def trunk(self, images: Tensor) -> Tensor:
        """F, the backbone's output pooled to the grid: [B, 3, S, S] -> [B, channels, H, W]."""
        if self.config.lower_stages:
            return with_lower_stages(self.backbone, images, self.grid)
        return F.adaptive_avg_pool2d(self.backbone(images), self.grid)

    def run_stem(self, images: Tensor) -> Tensor:
        """What does not depend on the backbone's last stage, in one row an image: the lower stages'
        part of F, if it has one, then the output of the stage below the last.
        [B, 3, S, S] -> [B, n]."""
        stages = stages_below(self.backbone, images)
        rows = [stages[-1].to(images.dtype).flatten(1)]
        if self.config.lower_stages:
            rows.insert(0, averaged(images, stages, self.grid).flatten(1))
        return torch.cat(rows, 1)

    def above_stem(self, stem: Tensor) -> Tensor:
        """Run the last stage: F [B, channels, H, W] of what `run_stem` gave [B, n]."""
        lower, (height, width) = self.last_stage.start, self.grid
        kept, below = stem.tensor_split([lower * height * width], 1)
        channels = channels_below(self.config.backbone, self.config.stage)
        side = math.isqrt(below.shape[1] // channels)
        below = below.reshape(len(stem), channels, side, side)
        last = last_stage(self.backbone)(below.contiguous(memory_format=torch.channels_last))
        last = F.adaptive_avg_pool2d(last, self.grid).to(stem.dtype)
        return torch.cat([kept.reshape(len(stem), lower, height, width), last], 1)

    def trunk_from(self, inputs: Tensor, freeze: Freeze) -> Tensor:
        """F [B, channels, H, W] of what training reads: with `none` images, with `stem` what the
        stem gave, with `all` F itself."""
        if freeze == "all":
            return inputs
        return self.above_stem(inputs) if freeze == "stem" else self.trunk(inputs)

    def features(self, images: Tensor) -> Tensor:
        """I, independent of any condition: normalised images [B, 3, S, S] -> [B, *, h, w]."""
        maps: Tensor = self.reduce(self.standardise(self.trunk(images)))
        return maps

    @property
    def width(self) -> int:
        """Numbers of an embedding: K with the readout of values, else d."""
        return self.dim if self.values is None else self.schema.size

    def attend(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The embedding [B, width] of I [B, *, h, w] under label states [B or 1, K]: Z of length 1,
        or the chances of the attributes that the condition speaks of, see `ValueReadout`.

        Two images are compared by the inner product.
        """
        conditions = condition.unsqueeze(1)
        z = self.attend_raw(maps, conditions, keys)
        z = F.normalize(z, dim=-1) if self.values is None else self.values(z, conditions)
        return z.squeeze(1)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """The embedding [B, width] of images [B, 3, S, S] under a condition [B or 1, K]."""
        return self.attend(self.features(images), condition)

    def category_logits(self, maps: Tensor) -> Tensor | None:
        """Logits of every category [B, C] of I, told nothing; None without a category head."""
        if self.category_head is None:
            return None
        z = self.attend_raw(maps, maps.new_zeros(1, 1, self.schema.size))
        logits: Tensor = self.category_head(z[:, 0])
        return logits

    def value_logits(self, by_type: Tensor) -> Tensor:
        """Logits of each value [B, K], from Z under every type condition [B, T, d]."""
        types = range(len(self.schema.attributes))
        return torch.cat([self.logits_of(by_type[:, n], n) for n in types], -1)

    def logits_of(self, z: Tensor, number: int) -> Tensor:
        """Logits of one attribute's values [B, n] from Z before normalisation [B, d]."""
        if self.values is not None:
            return self.values.logits(z, number)
        where = self.schema.slice_of(number)
        return F.linear(z, self.attribute_head.weight[where], self.attribute_head.bias[where])

    def chances(self, by_type: Tensor) -> Tensor:
        """Probability of every value [B, K] in 0..1, from Z under every type condition [B, T, d].

        Softmax over the values of a single-valued attribute, sigmoid for a multi-valued one; what
        is left of 1 is the chance that an optional one does not apply.
        """
        out = []
        for number, attribute in enumerate(self.schema.attributes):
            out.append(chances_of(self.logits_of(by_type[:, number], number), attribute))
        return torch.cat(out, -1)

    def predict(self, maps: Tensor, keys: Tensor | None = None) -> Tensor:
        """Probability of every value, [B, K] in 0..1, from I [B, *, h, w]."""
        return self.chances(self.attend_raw(maps, self.type_conditions.unsqueeze(0), keys))

    def nuance_of(self, seen: Seen) -> Tensor:
        """The attributes' nuance [B, T x numbers] from what is seen under every type condition."""
        return self.nuance(torch.cat([seen.attended, seen.z], -1))  # type: ignore[no-any-return]

    def describe(self, trunk: Tensor) -> Described:
        """Chances and nuance of images, from F [B, channels, H, W]."""
        trunk = self.standardise(trunk)
        maps = self.reduce(trunk)
        return self.describe_maps(trunk, maps, self.keys(maps))

    def describe_maps(self, trunk: Tensor, maps: Tensor, keys: Tensor) -> Described:
        """`describe` where I [B, *, h, w] and P are at hand; F is standardised."""
        seen = self.see(maps, self.type_conditions.unsqueeze(0), keys)
        nuance = torch.cat([self.nuance_of(seen), self.garment_nuance(trunk)], -1)
        return Described(self.chances(seen.z), nuance)

    def parameters_of_embedder(self) -> int:
        """How many parameters an embedding needs: with the backbone, without the two heads."""
        heads = ("attribute_head.", "category_head.")
        return sum(p.numel() for n, p in self.named_parameters() if not n.startswith(heads))


class ValueReadout(nn.Module):
    """What Z says of the values that are asked for: their prototypes, and a classifier over them.

    Not in the paper. Ranking by the cosine of Z finds much less than a classifier on the same Z
    knows (benchmarks/NOTES.md): most directions of Z say nothing about the attribute asked for.
    Candidates are best ranked by the probability p . p' that their value is the query's, an inner
    product. So the embedding under a condition is p, of the attributes that it speaks of.
    """

    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__()
        self.schema = schema
        self.prototypes = nn.Parameter(torch.randn(schema.size, dim) / math.sqrt(dim))
        self.bias = nn.Parameter(torch.zeros(schema.size))
        self.log_scale = nn.Parameter(torch.tensor(math.log(16.0)))  # of cosines as logits
        self.register_buffer("temperatures", torch.ones(len(schema.attributes)))
        self.temperatures: Tensor  # of logits, by which chances are as often right as they say

    def logits(self, z: Tensor, number: int) -> Tensor:
        """Logits of one attribute's values: [*, d] (of any length) -> [*, its values]."""
        where = self.schema.slice_of(number)
        near = F.normalize(z, dim=-1) @ F.normalize(self.prototypes[where], dim=-1).T
        return (near * self.log_scale.exp() + self.bias[where]) / self.temperatures[number]

    def calibrate(self, chances: Tensor, labels: Tensor) -> Tensor:
        """Set the temperatures by which labels are likeliest, of images that were not trained on:
        what the model says of them [M, K] in 0..1, and label states [M, K]; what it says of them
        then. Attributes that few of them are labelled in stay (Guo et al. 2017, temperature
        scaling)."""
        out = chances.clone()
        for number, several in enumerate(self.schema.multi.tolist()):
            own = self.schema.slice_of(number)
            attribute, states = self.schema.attributes[number], labels[:, own]
            none = inapplicable(states, attribute)
            known = (states == 1).any(-1) | none
            if int(known.sum()) >= LABELLED:
                said = chances[:, own].double().clamp(1e-7, 1 - 1e-7)
                logits = torch.logit(said) if several else said.log()
                if attribute.optional and not several:  # the logit of "not applicable" is 0
                    logits = logits - (1 - said.sum(-1, keepdim=True)).clamp(min=1e-7).log()
                factor = _likeliest(logits[known], states[known], attribute)
                self.temperatures[number] /= factor
                out[:, own] = chances_of(factor * logits, attribute).to(out.dtype)
        return out

    def forward(self, z: Tensor, conditions: Tensor) -> Tensor:
        """Embeddings [B, C, K] whose inner product is how likely two images share a value, of Z
        [B, C, d] under label states [B or 1, C, K] float.

        Of several attributes that a condition speaks of it is the mean; of none, zeros.
        """
        named = named_attributes(conditions, self.schema)
        share = (named / named.sum(-1, keepdim=True).clamp(min=1)).sqrt()
        parts = []
        for number, attribute in enumerate(self.schema.attributes):
            logits = self.logits(z, number)
            likely = chances_of(logits, attribute)
            if attribute.multi:
                likely = likely / likely.sum(-1, keepdim=True)  # of one of them, drawn
            parts.append(share[..., number, None] * likely)
        return torch.cat(parts, -1)


def chances_of(logits: Tensor, attribute: Attribute) -> Tensor:
    """Probability of each value [*, n] in 0..1, of an attribute's logits [*, n]."""
    if attribute.multi:
        return logits.sigmoid()
    if attribute.optional:
        return F.pad(logits, (0, 1)).softmax(-1)[..., :-1]
    return logits.softmax(-1)


def _likeliest(logits: Tensor, states: Tensor, attribute: Attribute) -> float:
    """The factor of logits [M, n] by which label states [M, n] are likeliest."""
    stated, none = states != 0, inapplicable(states, attribute)

    def likelihood(factor: float) -> float:
        scaled = factor * logits
        if attribute.multi:
            return float(F.logsigmoid(scaled[stated] * states[stated]).mean())
        if attribute.optional:
            said = F.pad(scaled, (0, 1)).log_softmax(-1)
            return float(torch.cat([said[:, :-1][states == 1], said[none, -1]]).mean())
        return float(scaled.log_softmax(-1)[states == 1].mean())

    return max(FACTORS, key=likelihood)


def chance_roots(chances: Tensor, conditions: Tensor, schema: Schema) -> Tensor:
    """Embeddings [B, 2 K] of length 1 whose inner product says how alike chances [B, K] are in the
    attributes that conditions [B or 1, K] speak of.

    Of a single-valued attribute it is sum sqrt(p_a p'_a), of a multi-valued one the mean over its
    values of sqrt(p p') + sqrt((1 - p) (1 - p')), of several attributes the mean.
    """
    shares = attribute_weights(conditions, schema)
    present, absent = [], []
    for number, attribute in enumerate(schema.attributes):
        share = shares[:, number, None]
        own = chances[:, schema.slice_of(number)]
        count = own.shape[1] if attribute.multi else 1
        present.append((share * own / count).clamp(min=0).sqrt())
        absent.append((share * (1 - own) / count).clamp(min=0).sqrt() * attribute.multi)
    return torch.cat([*present, *absent], -1)


def named_attributes(conditions: Tensor, schema: Schema) -> Tensor:
    """Whether a condition speaks of each attribute, present or absent: [*, K] -> [*, T], 0 or 1."""
    ranges = [schema.slice_of(number) for number in range(len(schema.attributes))]
    return torch.stack([conditions[..., where].abs().amax(-1) for where in ranges], -1)


def attribute_weights(conditions: Tensor, schema: Schema) -> Tensor:
    """A condition to a model that knows attributes, not values: the mean of their one-hots.

    [*, T] of label states [*, K]; rows are >= 0 and sum to 1. An attribute counts once, however
    many of its values are named; a condition that names nothing gives 1 / T throughout.
    """
    named = named_attributes(conditions, schema)
    named = named + (named.sum(-1, keepdim=True) == 0).to(named.dtype)
    return named / named.sum(-1, keepdim=True)
