"""ADDE-M, a rival that edits embeddings (Hou et al., ICCV 2021), on pooled features of a backbone.

A vector a picture, made of a block an attribute; a memory of prototypes, one a value, says how the
vector changes when a value does: z' = z + M (new - old). Re-implemented from the paper's losses and
weights. What differs: the backbone is frozen, so Adam starts at 1e-3 instead of 1e-4; several
values of one attribute are a set, learned with binary cross-entropy and as the sum of their
prototypes; epochs are chosen on `valid` (theirs on test); and where too few train pictures have
*exactly* the labels asked for, the positive is one with the new value and most of the others.

Budget: 7,046 train pictures, 16 + 12 epochs, batches of 128 and 64: 3 minutes of one core.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.evaluation.attribute_map import Embed
from training.errors import DataError
from training.schema import Condition, Schema


@dataclass(frozen=True)
class Moves:
    """M changes: of which pictures, of which attribute, to which code of new values; [M] int64."""

    rows: NDArray[np.int64]
    attributes: NDArray[np.int64]
    new: NDArray[np.int64]

    def some(self, places: NDArray[np.int64]) -> Moves:
        """Those at some places."""
        return Moves(self.rows[places], self.attributes[places], self.new[places])


@dataclass(frozen=True)
class Coded:
    """Labels with every set of values that an attribute has somewhere numbered.

    Args:
        codes: number of the set [N, A] int64; 0 is the empty set: not known.
        sets: per attribute, which values each set holds, [sets, n] float32.
    """

    codes: NDArray[np.int64]
    sets: tuple[NDArray[np.float32], ...]

    @classmethod
    def of(cls, labels: NDArray[np.int8], schema: Schema) -> Coded:
        """Number the sets of values in label states [N, K]."""
        codes, sets = [], []
        for number in range(len(schema.attributes)):
            has = labels[:, schema.slice_of(number)] == 1
            with_empty = np.concatenate([np.zeros_like(has[:1]), has])
            found, inverse = np.unique(with_empty, axis=0, return_inverse=True)
            codes.append(inverse.reshape(-1)[1:])  # rows are sorted: the empty set comes first
            sets.append(found.astype(np.float32))
        return cls(np.stack(codes, axis=1).astype(np.int64), tuple(sets))

    def indicators(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Which values are held, [M, K] of 0 and 1, of codes [M, A]."""
        parts = [held[codes[:, number]] for number, held in enumerate(self.sets)]
        return np.concatenate(parts, axis=1)

    def nearest(
        self, targets: NDArray[np.int64], moves: Moves, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """For each target [M, A], a picture with the new values and most of the other labels: one
        that has them all if there is one; drawn among equals. Rows [M]."""
        agree = np.zeros((len(targets), len(self.codes)), dtype=np.float32)
        for number in range(self.codes.shape[1]):
            own = self.codes[:, number][None] == targets[:, number][:, None]
            agree += np.where(moves.attributes[:, None] == number, self.codes.shape[1], 1) * own
        return np.asarray((agree + 0.5 * rng.random(agree.shape, np.float32)).argmax(axis=1))

    def different(self, targets: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """For each target [M, A], a picture whose labels are not the same, while there are any."""
        drawn = rng.integers(len(self.codes), size=len(targets))
        for _ in range(20):
            same = (self.codes[drawn] == targets).all(axis=1)
            if not same.any():
                break
            drawn[same] = rng.integers(len(self.codes), size=int(same.sum()))
        return drawn


def whole_targets(coded: Coded, moves: Moves) -> NDArray[np.int64]:
    """Codes [M, A] of the pictures with the change made."""
    targets = coded.codes[moves.rows].copy()
    targets[np.arange(len(targets)), moves.attributes] = moves.new
    return targets


def exact_moves(coded: Coded) -> Moves:
    """Every change to other known values for which some picture has exactly the labels that
    result."""
    found: list[tuple[int, int, int]] = []
    for attribute in range(coded.codes.shape[1]):
        rest = np.delete(coded.codes, attribute, axis=1)
        groups = np.unique(rest, axis=0, return_inverse=True)[1].reshape(-1)
        there: dict[int, set[int]] = defaultdict(set)
        own = coded.codes[:, attribute]
        for group, code in zip(groups.tolist(), own.tolist(), strict=True):
            there[group].add(code)
        for row, (group, code) in enumerate(zip(groups.tolist(), own.tolist(), strict=True)):
            found += [(row, attribute, new) for new in sorted(there[group] - {0, code})]
    rows, attributes, new = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return Moves(rows, attributes, new)


def draw_moves(
    coded: Coded, count: int, rng: np.random.Generator, among: Moves | None = None
) -> Moves:
    """Draw changes: the attribute uniformly, then one of its changes: of `among`, or if it is None
    any picture's to any other values that occur."""
    if among is not None:
        of = [np.flatnonzero(among.attributes == a) for a in range(coded.codes.shape[1])]
        of = [places for places in of if len(places)]
        which = rng.integers(len(of), size=count)
        return among.some(np.array([rng.choice(of[w]) for w in which], dtype=np.int64))
    several = [a for a, held in enumerate(coded.sets) if len(held) > 2]  # besides the empty set
    if not several:
        empty = np.zeros(0, dtype=np.int64)
        return Moves(empty, empty, empty)
    attributes = rng.choice(several, count)
    rows = rng.integers(len(coded.codes), size=count)
    kinds = np.array([len(held) for held in coded.sets])[attributes]
    old = coded.codes[rows, attributes]
    new = 1 + rng.integers(kinds - 1 - (old > 0))
    return Moves(rows, attributes, new + ((old > 0) & (new >= old)))


BLOCK = 340
"""Length of an attribute's block."""

MARGIN = 0.5
TOP = 30
_DRAWN = 100  # pictures that a prototype begins as the mean of
_VALID_MOVES = 500

States = NDArray[np.int8]
"""Label states [N, K] in {-1, 0, +1}."""


@dataclass(frozen=True)
class AddeRecipe:
    """Epochs (the best one on `valid` counts) and batches of both stages; Adam's rate, halved
    every 10 epochs."""

    blocks_epochs: int = 16
    memory_epochs: int = 12
    blocks_batch: int = 128
    memory_batch: int = 64
    learning_rate: float = 1e-3


class Adde(nn.Module):
    """Blocks, their classifiers and the memory, for A attributes, K values and F features."""

    def __init__(self, schema: Schema, width: int) -> None:
        super().__init__()
        self.schema = schema
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, BLOCK), nn.ReLU(), nn.Linear(BLOCK, BLOCK))
            for _ in schema.attributes
        )
        self.classifiers = nn.ModuleList(
            nn.Linear(BLOCK, len(attribute.values)) for attribute in schema.attributes
        )
        self.memory = nn.Parameter(torch.zeros(schema.size, BLOCK * len(schema.attributes)))
        own = torch.zeros(schema.size, len(schema.attributes), BLOCK)
        own[torch.arange(schema.size), torch.from_numpy(schema.attribute_of)] = 1
        self.register_buffer("own", own.flatten(1), persistent=False)
        self.own: Tensor  # which entries of the memory are in their value's own block

    def forward(self, features: Tensor) -> Tensor:
        """z [B, A, BLOCK] of standardised features [B, F]."""
        z: Tensor = torch.stack([block(features) for block in self.blocks], 1)
        return z

    def logits(self, z: Tensor) -> list[Tensor]:
        """Logits [B, n] of each attribute's values."""
        return [classifier(z[:, n]) for n, classifier in enumerate(self.classifiers)]

    def chances(self, z: Tensor) -> Tensor:
        """Chance of every value, [B, K]."""
        parts = zip(self.logits(z), self.schema.attributes, strict=True)
        return torch.cat([x.sigmoid() if a.multi else x.softmax(-1) for x, a in parts], -1)

    def prototypes(self, values: Tensor) -> Tensor:
        """M [B, A, BLOCK] of value indicators, or differences of them, [B, K] float."""
        return (values @ self.memory).view(len(values), -1, BLOCK)


@torch.no_grad()
def embed(adde: Adde, features: NDArray[np.float32]) -> Tensor:
    """z [N, A, BLOCK] of features [N, F]."""
    starts = range(0, len(features), 4096)
    return torch.cat([adde(torch.from_numpy(features[i : i + 4096])) for i in starts])


def train_adde(
    schema: Schema,
    features: NDArray[np.float32],
    labels: States,
    valid_features: NDArray[np.float32],
    valid_labels: States,
    seed: int = 0,
    recipe: AddeRecipe = AddeRecipe(),
) -> Adde:
    """Train both stages on standardised features [N, F] and label states [N, K].

    Epochs are chosen on `valid`: of stage 1 by the share of known labels told right, of stage 2 by
    Top-30 and NDCG@30 of changes.

    Raises:
        DataError: fewer than two train pictures, or none of `valid`.
    """
    if len(features) < 2 or not len(valid_features):
        raise DataError(
            f"{len(features)} train and {len(valid_features)} valid pictures; ADDE-M needs "
            "two of train and one of valid at least"
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adde = Adde(schema, features.shape[1])
    train = _Split(torch.from_numpy(features), labels, Coded.of(labels, schema))
    valid = _Split(torch.from_numpy(valid_features), valid_labels, Coded.of(valid_labels, schema))
    _train_blocks(adde, train, valid, recipe, generator)
    _begin_memory(adde, train, generator)
    _train_memory(adde, train, valid, recipe, generator)
    return adde.eval().requires_grad_(False)


class AddeScorer:
    """Ranks as its protocol does; see `retrieval.evaluation.scorer.Scorer`.

    The values that a query has now are its true `labels` [N, K] where they are `told`, as in the
    published protocol; otherwise they are predicted.
    """

    def __init__(
        self, adde: Adde, features: NDArray[np.float32], labels: States, told: bool = True
    ) -> None:
        z = embed(adde, features)
        self._schema = adde.schema
        self._z = z.flatten(1).numpy()
        self._unit = unit(self._z)
        self._memory = adde.memory.detach().numpy()
        self._own = adde.own.numpy()
        self._has = labels == 1
        if not told:
            self._has = predicted_values(adde.chances(z).numpy(), adde.schema)
        now = "told" if told else "predicted"
        self.ranked_by = f"ADDE-M, cosine of z + M(new - old), old values {now}"

    def whole(self, query: int) -> NDArray[np.float32]:
        """Cosine of z, [N]."""
        return self._cosine(self._z[query])

    def kept(self, query: int, attributes: Sequence[int]) -> NDArray[np.float32]:
        """Cosine over the blocks of the other attributes, [N]; of z if there is none."""
        others = np.setdiff1d(np.arange(len(self._schema.attributes)), attributes)
        if not len(others):
            return self.whole(query)
        columns = (others[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        part = unit(self._z[:, columns])
        return np.asarray(part @ part[query], dtype=np.float32)

    def named(
        self,
        query: int,
        wanted: Sequence[int],
        unwanted: Sequence[int] = (),
        keep: float | None = None,
    ) -> NDArray[np.float32]:
        """Cosine to z', [N]; the values wanted of an attribute replace all that it had."""
        change = np.zeros(self._schema.size, dtype=np.float32)
        for number in {int(self._schema.attribute_of[value]) for value in wanted}:
            where = self._schema.slice_of(number)
            change[where] = -self._has[query, where].astype(np.float32)
        change[list(wanted)] += 1
        z = self._z[query] + change @ self._memory
        for value in unwanted:
            z = z - self._memory[value] * self._own[value]
        return self._cosine(z)

    def _cosine(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self._unit @ unit(z[None])[0], dtype=np.float32)


def block_embed(adde: Adde, features: NDArray[np.float32]) -> Embed:
    """Embeddings for attribute-specific MAP: the blocks of the attributes that are asked about."""
    z = embed(adde, features).numpy()

    def of(condition: Condition, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        asked = np.unique(adde.schema.attribute_of[condition != 0])
        return unit(z[rows][:, asked].reshape(len(rows), -1))

    return of


def predicted_values(chances: NDArray[np.float32], schema: Schema) -> NDArray[np.bool_]:
    """Which values are predicted, [N, K]: the likeliest of an attribute, or those of at least 0.5
    where an attribute has several."""
    out = chances >= 0.5
    for number, attribute in enumerate(schema.attributes):
        if not attribute.multi:
            where = schema.slice_of(number)
            best = chances[:, where].argmax(axis=1)
            out[:, where] = np.arange(len(attribute.values)) == best[:, None]
    return out


def semi_hard_loss(x: Tensor, classes: Tensor) -> Tensor:
    """Semi-hard triplet loss of vectors [B, D] of classes [B], mean over all pairs of one class.

    Distances are squared, between directions. A pair's negative is the nearest one that is farther
    than the positive, or the farthest one if none is; a pair without any does not count.
    """
    x = F.normalize(x, dim=-1)
    distance = (2 - 2 * x @ x.T).clamp(min=0)
    same = classes[:, None] == classes[None]
    pairs = same & ~torch.eye(len(x), dtype=torch.bool) & ~same.all(1, keepdim=True)
    if not pairs.any():
        return x.sum() * 0
    ascending = distance.masked_fill(same, torch.inf).sort(1).values
    place = torch.searchsorted(ascending.detach(), distance.detach(), right=True)
    farther = ascending.gather(1, place.clamp(max=len(x) - 1))
    farthest = distance.masked_fill(same, -torch.inf).max(1, keepdim=True).values
    negative = torch.where(farther.isinf(), farthest, farther)
    return F.relu(MARGIN + distance - negative)[pairs].mean()


@dataclass(frozen=True)
class _Split:
    features: Tensor
    labels: States
    coded: Coded


def _label_loss(adde: Adde, z: Tensor, states: Tensor) -> Tensor:
    """Cross-entropy of every attribute's known labels, summed over attributes."""
    total = z.sum() * 0
    for number, logits in enumerate(adde.logits(z)):
        own = states[:, adde.schema.slice_of(number)]
        has, multi = own == 1, adde.schema.attributes[number].multi
        known = own != 0 if multi else has.any(1)
        if known.any() and multi:
            loss = F.binary_cross_entropy_with_logits(logits[known], has[known].float())
            total = total + loss
        elif known.any():
            total = total + F.cross_entropy(logits[known], has[known].int().argmax(1))
    return total


def _whole_classes(codes: Tensor) -> Tensor:
    classes: Tensor = torch.unique(codes, dim=0, return_inverse=True)[1]
    return classes


def _train_stage(
    adde: Adde,
    parameters: Iterable[nn.Parameter],
    epochs: int,
    rate: float,
    losses: Callable[[], Iterator[Tensor]],
    score: Callable[[], float],
) -> None:
    """Step down the losses of every epoch; keep the state whose score is the best."""
    optimizer = torch.optim.Adam(parameters)
    best, kept = score(), copy.deepcopy(adde.state_dict())
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = rate * 0.5 ** (epoch // 10)
        for loss in losses():
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found = score()
        if found > best:
            best, kept = found, copy.deepcopy(adde.state_dict())
    adde.load_state_dict(kept)


def _train_blocks(
    adde: Adde, train: _Split, valid: _Split, recipe: AddeRecipe, generator: torch.Generator
) -> None:
    def losses() -> Iterator[Tensor]:
        order = torch.randperm(len(train.features), generator=generator)
        for part in torch.split(order, recipe.blocks_batch):
            z, codes = adde(train.features[part]), torch.from_numpy(train.coded.codes)[part]
            loss = 0.2 * _label_loss(adde, z, torch.from_numpy(train.labels)[part])
            for number in range(codes.shape[1]):
                loss = loss + 0.2 * semi_hard_loss(z[:, number], codes[:, number])
            yield loss + semi_hard_loss(z.flatten(1), _whole_classes(codes))

    def score() -> float:
        return _told_right(adde, valid)

    parameters = [*adde.blocks.parameters(), *adde.classifiers.parameters()]
    _train_stage(adde, parameters, recipe.blocks_epochs, recipe.learning_rate, losses, score)


@torch.no_grad()
def _told_right(adde: Adde, split: _Split) -> float:
    """Share of the known label states that are predicted right."""
    chances = adde.chances(adde(split.features)).numpy()
    known = split.labels != 0
    right = predicted_values(chances, adde.schema) == (split.labels == 1)
    return float(right[known].mean()) if known.any() else 0.0


def _begin_memory(adde: Adde, train: _Split, generator: torch.Generator) -> None:
    """Each prototype begins as the mean block of some train pictures that have the value."""
    z = embed(adde, train.features.numpy())
    with torch.no_grad():
        for value, number in enumerate(adde.schema.attribute_of.tolist()):
            rows = torch.from_numpy(np.flatnonzero(train.labels[:, value] == 1))
            if len(rows):
                drawn = rows[torch.randperm(len(rows), generator=generator)[:_DRAWN]]
                block = slice(number * BLOCK, (number + 1) * BLOCK)
                adde.memory[value, block] = z[drawn, number].mean(0)


def _train_memory(
    adde: Adde, train: _Split, valid: _Split, recipe: AddeRecipe, generator: torch.Generator
) -> None:
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    exact = exact_moves(train.coded)
    enough = len(exact.rows) >= len(train.features)  # else any change, and near positives
    trials, drawn = exact_moves(valid.coded), np.random.default_rng(0)
    if len(trials.rows) < _VALID_MOVES:
        trials = draw_moves(valid.coded, _VALID_MOVES, drawn)
    else:
        trials = trials.some(drawn.choice(len(trials.rows), _VALID_MOVES, replace=False))

    def losses() -> Iterator[Tensor]:
        moves = draw_moves(train.coded, len(train.features), rng, exact if enough else None)
        for start in range(0, len(moves.rows), recipe.memory_batch):
            part = np.arange(start, min(start + recipe.memory_batch, len(moves.rows)))
            yield _memory_loss(adde, train, moves.some(part), rng)

    def score() -> float:
        return _changed_well(adde, valid, trials)

    _train_stage(adde, adde.parameters(), recipe.memory_epochs, recipe.learning_rate, losses, score)


def _memory_loss(adde: Adde, train: _Split, moves: Moves, rng: np.random.Generator) -> Tensor:
    targets, codes = whole_targets(train.coded, moves), train.coded.codes
    positives = train.coded.nearest(targets, moves, rng)
    negatives = train.coded.different(targets, rng)
    wanted, had, others = (
        torch.from_numpy(train.coded.indicators(of))
        for of in (targets, codes[moves.rows], codes[negatives])
    )
    pictures = (moves.rows, positives, negatives)
    reference, positive, negative = (adde(train.features[torch.from_numpy(r)]) for r in pictures)
    changed = reference + adde.prototypes(wanted - had)
    states = [torch.from_numpy(train.labels[rows]) for rows in pictures]
    exchanged = torch.from_numpy(adde.schema.attribute_of[None] == moves.attributes[:, None])
    states.append(torch.where(exchanged, torch.where(wanted == 1, 1, -1).to(torch.int8), states[0]))
    loss: Tensor = changed.sum() * 0
    for z, own in zip((reference, positive, negative, changed), states, strict=True):
        loss = loss + 0.2 * _label_loss(adde, z, own)
    classes = np.concatenate([codes[moves.rows], targets, codes[negatives]])
    vectors = torch.cat([reference, changed, negative]).flatten(1)
    loss = loss + semi_hard_loss(vectors, _whole_classes(torch.from_numpy(classes)))
    triplet = [F.normalize(z.flatten(1), dim=-1) for z in (changed, positive, negative)]
    loss = loss + F.triplet_margin_loss(triplet[0], triplet[1], triplet[2], margin=MARGIN)
    for z, values in ((changed, wanted), (reference, had), (negative, others)):
        loss = loss + (adde.prototypes(values) - z).abs().mean()
    return loss + 0.4 * (adde.memory * (1 - adde.own)).abs().sum()


@torch.no_grad()
def _changed_well(adde: Adde, split: _Split, moves: Moves) -> float:
    """Top-30 + NDCG@30 of changed vectors among the pictures of a split."""
    if not len(moves.rows):
        return 0.0
    targets = whole_targets(split.coded, moves)
    z = adde(split.features)
    change = split.coded.indicators(targets) - split.coded.indicators(split.coded.codes[moves.rows])
    changed = z[torch.from_numpy(moves.rows)] + adde.prototypes(torch.from_numpy(change))
    gallery = F.normalize(z.flatten(1), dim=-1)
    scores = F.normalize(changed.flatten(1), dim=-1) @ gallery.T
    hits = scores.topk(min(TOP, len(z)), dim=1).indices.numpy()
    agree = (split.coded.codes[hits] == targets[:, None]).mean(-1)  # r
    discount = 1 / np.log2(np.arange(2, agree.shape[1] + 2))
    ndcg = ((2**agree - 1) * discount).sum(1) / discount.sum()
    return float((agree == 1).any(1).mean() + ndcg.mean())


def unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [..., D] over their lengths."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.asarray(x / np.maximum(length, 1e-12), dtype=np.float32)
