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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.evaluation.attribute_map import Embed
from retrieval.tags import THRESHOLD, Predicted
from training.descriptor import Floats
from training.errors import DataError
from training.schema import Condition, Schema

BLOCK = 340
"""Length of an attribute's block."""

MARGIN = 0.5
TOP = 30
BATCHES = 128, 64  # of the two stages
RATE = 1e-3  # halved every 10 epochs
_DRAWN = 100  # pictures that a prototype begins as the mean of
_VALID_CHANGES = 500

States = NDArray[np.int8]
"""Label states [N, K] in {-1, 0, +1}."""

Ints = NDArray[np.int64]


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
        self.own = own.flatten(1)  # which entries of the memory are in their value's own block

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
    def embed(self, features: Floats) -> Tensor:
        """z [N, A, BLOCK] of features [N, F], a part at a time."""
        return torch.cat([self(part) for part in torch.split(torch.from_numpy(features), 4096)])


class AddeScorer:
    """Ranks as its protocol does; see `retrieval.evaluation.scorer.Scorer`.

    The values that a query has now are its true `labels` [N, K] where they are `told`, as in the
    published protocol; otherwise they are predicted.
    """

    def __init__(self, adde: Adde, features: Floats, labels: States, told: bool = True) -> None:
        z = adde.embed(features)
        self._schema = adde.schema
        self._z = z.flatten(1).numpy()
        self._unit = unit(self._z)
        self._memory = adde.memory.detach().numpy()
        self._own = adde.own.numpy()
        chances = adde.chances(z).numpy()
        self._has = labels == 1 if told else predicted_values(chances, adde.schema)
        now = "told" if told else "predicted"
        self.ranked_by = f"ADDE-M, cosine of z + M(new - old), old values {now}"

    def whole(self, query: int) -> Floats:
        """Cosine of z, [N]."""
        return self._cosine(self._z[query])

    def kept(self, query: int, attributes: Sequence[int]) -> Floats:
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
    ) -> Floats:
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

    def _cosine(self, z: Floats) -> Floats:
        return np.asarray(self._unit @ unit(z), dtype=np.float32)


def block_embed(adde: Adde, features: Floats) -> Embed:
    """Embeddings for attribute-specific MAP: the blocks of the attributes that are asked about."""
    z = adde.embed(features).numpy()

    def of(condition: Condition, rows: Ints) -> Floats:
        asked = np.unique(adde.schema.attribute_of[condition != 0])
        return unit(z[rows][:, asked].reshape(len(rows), -1))

    return of


def predicted_values(
    chances: Floats, schema: Schema, least: Floats | None = None
) -> NDArray[np.bool_]:
    """Which values are predicted, [N, K]: the likeliest of an attribute, unless it is likelier that
    it does not apply, or where an attribute has several those of at least `least` [K], None: 0.5.
    """
    reached = chances >= (THRESHOLD if least is None else least)
    several = schema.multi[schema.attribute_of]
    return np.where(several, reached, Predicted.of(schema, chances).values)


def unit(x: Floats) -> Floats:
    """Vectors [..., D] over their lengths."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.asarray(x / np.maximum(length, 1e-12), dtype=np.float32)


class Pictures:
    """N pictures with labels [N, K], every set of values that an attribute has somewhere numbered.

    `codes` [N, A] are the numbers, 0 the empty set: not known; `sets` tells of each attribute which
    values each set holds, [sets, n] float32. *Changes* are rows of `(picture, attribute, number of
    the new set)`, [M, 3]; *targets* the codes [M, A] of pictures after a change.
    """

    def __init__(self, schema: Schema, features: Floats, labels: States) -> None:
        self.features, self.labels = torch.from_numpy(features), torch.from_numpy(labels)
        codes, self.sets = [], []
        for number in range(len(schema.attributes)):
            has = labels[:, schema.slice_of(number)] == 1
            with_empty = np.concatenate([np.zeros_like(has[:1]), has])
            found, inverse = np.unique(with_empty, axis=0, return_inverse=True)
            codes.append(inverse.reshape(-1)[1:])  # sets are sorted: the empty one comes first
            self.sets.append(found.astype(np.float32))
        self.codes: Ints = np.stack(codes, axis=1).astype(np.int64)

    def indicators(self, codes: Ints) -> Tensor:
        """Which values are held, [M, K] of 0 and 1, of codes [M, A]."""
        parts = [held[codes[:, number]] for number, held in enumerate(self.sets)]
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def targets(self, changes: Ints) -> Ints:
        """Codes of the pictures with the change made."""
        rows, attributes, new = changes.T
        codes: Ints = self.codes[rows]
        codes[np.arange(len(codes)), attributes] = new
        return codes

    def nearest(self, targets: Ints, attributes: Ints, rng: np.random.Generator) -> Ints:
        """For each target, a picture with the new values of the attribute that changed and most of
        the other labels: one that has them all if there is one; drawn among equals. Rows [M]."""
        agree = np.zeros((len(targets), len(self.codes)), dtype=np.float32)
        for number in range(self.codes.shape[1]):
            own = self.codes[:, number][None] == targets[:, number][:, None]
            agree += np.where(attributes[:, None] == number, self.codes.shape[1], 1) * own
        return np.asarray((agree + 0.5 * rng.random(agree.shape, np.float32)).argmax(axis=1))

    def different(self, targets: Ints, rng: np.random.Generator) -> Ints:
        """For each target, a picture whose labels are not the same, while there are any."""
        drawn = rng.integers(len(self.codes), size=len(targets))
        for _ in range(20):
            same = (self.codes[drawn] == targets).all(axis=1)
            drawn[same] = rng.integers(len(self.codes), size=int(same.sum()))
        return drawn

    def exact_changes(self) -> Ints:
        """Every change to other known values after which some picture has exactly the labels."""
        found = []
        for attribute, (own, held) in enumerate(zip(self.codes.T, self.sets, strict=True)):
            rest = np.delete(self.codes, attribute, axis=1)
            groups = np.unique(rest, axis=0, return_inverse=True)[1].reshape(-1)
            there = np.zeros((groups.max() + 1, len(held)), dtype=bool)
            there[groups, own] = True
            others = there[groups]
            others[np.arange(len(own)), own] = others[:, 0] = False
            rows, new = others.nonzero()
            found.append(np.stack([rows, np.full_like(rows, attribute), new], axis=1))
        return np.concatenate(found)

    def draw_changes(self, count: int, rng: np.random.Generator, among: Ints | None = None) -> Ints:
        """Draw changes: the attribute uniformly, then one of its changes: of `among`, or if it is
        None any picture's to any other values that occur."""
        if among is not None:
            of = [among[among[:, 1] == attribute] for attribute in np.unique(among[:, 1])]
            return np.array([rng.choice(of[n]) for n in rng.integers(len(of), size=count)])
        several = [a for a, held in enumerate(self.sets) if len(held) > 2]  # besides the empty set
        if not several:
            return np.zeros((0, 3), dtype=np.int64)
        attributes = rng.choice(several, count)
        rows = rng.integers(len(self.codes), size=count)
        old = self.codes[rows, attributes]
        kinds = np.array([len(held) for held in self.sets])[attributes]
        new = 1 + rng.integers(kinds - 1 - (old > 0))
        return np.stack([rows, attributes, new + ((old > 0) & (new >= old))], axis=1)


def train_adde(
    schema: Schema,
    train: tuple[Floats, States],
    valid: tuple[Floats, States],
    seed: int = 0,
    epochs: tuple[int, int] = (16, 12),
) -> Adde:
    """Train both stages on standardised features [N, F] and label states [N, K].

    The best epoch on `valid` counts: of stage 1 by the share of known labels told right, of stage 2
    by Top-30 and NDCG@30 of changes. Raises DataError: fewer than two train pictures, or none of
    `valid`.
    """
    if len(train[0]) < 2 or not len(valid[0]):
        raise DataError(
            f"{len(train[0])} train and {len(valid[0])} valid pictures; ADDE-M needs "
            "two of train and one of valid at least"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adde = Adde(schema, train[0].shape[1])
    generator = torch.Generator().manual_seed(seed)
    training = _Training(adde, Pictures(schema, *train), Pictures(schema, *valid), generator)
    parameters = [*adde.blocks.parameters(), *adde.classifiers.parameters()]
    training.stage(parameters, epochs[0], training.block_losses, training.told_right)
    training.begin_memory()
    losses, score = training.memory_stage()
    training.stage(adde.parameters(), epochs[1], losses, score)
    return adde.eval().requires_grad_(False)


@dataclass(frozen=True)
class _Training:
    adde: Adde
    train: Pictures
    valid: Pictures
    generator: torch.Generator

    def stage(
        self,
        parameters: Iterable[nn.Parameter],
        epochs: int,
        losses: Callable[[], Iterator[Tensor]],
        score: Callable[[], float],
    ) -> None:
        """Step down the losses of every epoch; keep the state whose score is the best."""
        optimizer = torch.optim.Adam(parameters)
        best, kept = score(), copy.deepcopy(self.adde.state_dict())
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = RATE * 0.5 ** (epoch // 10)
            for loss in losses():
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            found = score()
            if found > best:
                best, kept = found, copy.deepcopy(self.adde.state_dict())
        self.adde.load_state_dict(kept)

    def block_losses(self) -> Iterator[Tensor]:
        adde, train, every = self.adde, self.train, torch.from_numpy(self.train.codes)
        order = torch.randperm(len(every), generator=self.generator)
        for part in torch.split(order, BATCHES[0]):
            z, codes = adde(train.features[part]), every[part]
            loss = 0.2 * label_loss(adde, z, train.labels[part])
            for number in range(codes.shape[1]):
                loss = loss + 0.2 * semi_hard_loss(z[:, number], codes[:, number])
            yield loss + semi_hard_loss(z.flatten(1), _classes(codes))

    def begin_memory(self) -> None:
        """Each prototype begins as the mean block of some train pictures that have the value."""
        adde = self.adde
        z = adde.embed(self.train.features.numpy())
        with torch.no_grad():
            for value, number in enumerate(adde.schema.attribute_of.tolist()):
                rows = (self.train.labels[:, value] == 1).nonzero()[:, 0]
                if len(rows):
                    drawn = rows[torch.randperm(len(rows), generator=self.generator)[:_DRAWN]]
                    block = slice(number * BLOCK, (number + 1) * BLOCK)
                    adde.memory[value, block] = z[drawn, number].mean(0)

    def memory_stage(self) -> tuple[Callable[[], Iterator[Tensor]], Callable[[], float]]:
        """Losses of an epoch of stage 2, and its score."""
        train, valid, drawn = self.train, self.valid, np.random.default_rng(0)
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=self.generator)))
        exact, trials = train.exact_changes(), valid.exact_changes()
        enough = len(exact) >= len(train.codes)  # else any change, and near positives
        if len(trials) < _VALID_CHANGES:
            trials = valid.draw_changes(_VALID_CHANGES, drawn)
        else:
            trials = trials[drawn.choice(len(trials), _VALID_CHANGES, replace=False)]

        def losses() -> Iterator[Tensor]:
            changes = train.draw_changes(len(train.codes), rng, exact if enough else None)
            for start in range(0, len(changes), BATCHES[1]):
                yield self.memory_loss(changes[start : start + BATCHES[1]], rng)

        return losses, lambda: self.changed_well(trials)

    def memory_loss(self, changes: Ints, rng: np.random.Generator) -> Tensor:
        adde, train, rows = self.adde, self.train, changes[:, 0]
        targets = train.targets(changes)
        positives = train.nearest(targets, changes[:, 1], rng)
        negatives = train.different(targets, rng)
        codes = (train.codes[rows], targets, train.codes[negatives])
        had, wanted, others = map(train.indicators, codes)
        pictures = [torch.from_numpy(own) for own in (rows, positives, negatives)]
        reference, positive, negative = (adde(train.features[own]) for own in pictures)
        changed = reference + adde.prototypes(wanted - had)
        states = [train.labels[own] for own in pictures]
        exchanged = torch.from_numpy(adde.schema.attribute_of[None] == changes[:, 1:2])
        states.append(torch.where(exchanged, (2 * wanted - 1).to(torch.int8), states[0]))
        loss: Tensor = changed.sum() * 0
        for z, own in zip((reference, positive, negative, changed), states, strict=True):
            loss = loss + 0.2 * label_loss(adde, z, own)
        vectors = torch.cat([reference, changed, negative]).flatten(1)
        loss = loss + semi_hard_loss(vectors, _classes(torch.from_numpy(np.concatenate(codes))))
        one, like, unlike = (F.normalize(z.flatten(1)) for z in (changed, positive, negative))
        loss = loss + F.triplet_margin_loss(one, like, unlike, margin=MARGIN)
        for z, values in ((changed, wanted), (reference, had), (negative, others)):
            loss = loss + (adde.prototypes(values) - z).abs().mean()
        return loss + 0.4 * (adde.memory * (1 - adde.own)).abs().sum()

    @torch.no_grad()
    def told_right(self) -> float:
        """Share of the known label states that are predicted right."""
        chances = self.adde.chances(self.adde(self.valid.features)).numpy()
        labels = self.valid.labels.numpy()
        right = predicted_values(chances, self.adde.schema) == (labels == 1)
        return float(right[labels != 0].mean()) if labels.any() else 0.0

    @torch.no_grad()
    def changed_well(self, changes: Ints) -> float:
        """Top-30 + NDCG@30 of changed vectors among the pictures of `valid`."""
        if not len(changes):
            return 0.0
        valid, rows = self.valid, changes[:, 0]
        targets = valid.targets(changes)
        z = self.adde(valid.features)
        change = valid.indicators(targets) - valid.indicators(valid.codes[rows])
        changed = z[torch.from_numpy(rows)] + self.adde.prototypes(change)
        gallery = F.normalize(z.flatten(1), dim=-1)
        scores = F.normalize(changed.flatten(1), dim=-1) @ gallery.T
        hits = scores.topk(min(TOP, len(z)), dim=1).indices.numpy()
        agree = (valid.codes[hits] == targets[:, None]).mean(-1)
        discount = 1 / np.log2(np.arange(2, agree.shape[1] + 2))
        ndcg = ((2**agree - 1) * discount).sum(1) / discount.sum()
        return float((agree == 1).any(1).mean() + ndcg.mean())


def label_loss(adde: Adde, z: Tensor, states: Tensor) -> Tensor:
    """Cross-entropy of every attribute's known labels, summed over attributes."""
    total = z.sum() * 0
    for number, logits in enumerate(adde.logits(z)):
        own = states[:, adde.schema.slice_of(number)]
        has, multi = own == 1, adde.schema.attributes[number].multi
        known = own != 0 if multi else has.any(1)
        if known.any() and multi:
            total += F.binary_cross_entropy_with_logits(logits[known], has[known].float())
        elif known.any():
            total += F.cross_entropy(logits[known], has[known].int().argmax(1))
    return total


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


def _classes(codes: Tensor) -> Tensor:
    classes: Tensor = torch.unique(codes, dim=0, return_inverse=True)[1]
    return classes
