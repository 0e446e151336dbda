"""The models that are compared in rows, each as a scorer of one split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from benchmarks.adde import Adde, AddeRecipe, AddeScorer, States, block_embed, train_adde
from benchmarks.pooled_features import Scale, pooled_stages
from benchmarks.shop import ShopScorer
from retrieval.evaluation.attribute_map import Embed
from retrieval.evaluation.encoded_split import EncodedSplit
from retrieval.evaluation.scorer import Scorer
from retrieval.evaluation.scoring import DescriptorScorer, FloorScorer, floor_embed
from training.checkpoint import Checkpoint
from training.code_hash import code_hash
from training.datasets.dataset import Dataset
from training.errors import UsageError
from training.files import write_file
from training.schema import Schema
from training.sources import validation_rows

TITLES = {
    "floor": "pooled features, untrained",
    "shop": "tag, filter, nearest",
    "adde": "ADDE-M, told the old value",
    "adde-predicted": "ADDE-M, old value predicted",
    "earlier": "M2Fashion, version 0.1",
    "m2fashion": "M2Fashion",
}
"""Row -> title, in the order of tables."""

MODELS = tuple(name for name in TITLES if name != "earlier")
"""Those that are measured; version 0.1's rows stay as the commit that they name measured them."""

_CODE = ("adde.py", "moves.py", "pooled_features.py")


@dataclass(frozen=True)
class MeasuredRow:
    """One model on one split.

    Args:
        model: its name, of `TITLES`.
        scorer: over the split's rows.
        embed: its embeddings under a type condition; None if it has none.
        embed_queries: those of the queries where they are made in another way.
        has_dial: whether the scorer's dial does anything.
    """

    model: str
    scorer: Scorer
    embed: Embed | None
    embed_queries: Embed | None = None
    has_dial: bool = False


def chosen_models(names: str | None) -> list[str]:
    """The models named in `a,b`, in the order of tables; all of them for None.

    Raises:
        UsageError: there is no such model.
    """
    if names is None:
        return list(MODELS)
    wanted = [part.strip() for part in names.split(",")]
    for name in wanted:
        if name not in MODELS:
            raise UsageError(f"unknown row {name!r}; there are {', '.join(MODELS)}")
    return [name for name in MODELS if name in wanted]


def measured_rows(
    models: Sequence[str],
    loaded: Checkpoint,
    encoded: EncodedSplit,
    train: Dataset,
    cache: Path,
    workers: int,
    seed: int,
) -> Iterator[MeasuredRow]:
    """Each model on the encoded split, one after the other.

    Args:
        models: which, of `TITLES`.
        loaded: the trained M2Fashion; all rows see its backbone's features, the shop its chances.
        encoded: its maps of the split that is measured.
        train: dataset that the checkpoint was trained on, for ADDE-M and the features' scale.
        cache: folder of backbone maps and of trained ADDE-Ms.
        workers: decoding processes.
        seed: of ADDE-M.
    """
    part, bank, schema = encoded.dataset, encoded.bank, loaded.schema
    if "floor" in models:
        yield MeasuredRow("floor", FloorScorer(bank.pooled), floor_embed(bank))
    if set(models) & {"shop", "adde", "adde-predicted"}:
        pool = partial(
            pooled_stages,
            loaded.model,
            preprocessing=loaded.preprocessing,
            cache=cache,
            workers=workers,
        )
        rows, held_out = train.rows_of("train"), validation_rows(train)
        seen = pool(train, np.union1d(rows, held_out), title="pooling, train")
        rows, held_out = (np.intersect1d(some, seen.rows) for some in (rows, held_out))
        scale = Scale.of(seen.of(rows))
        features = scale.standardise(pool(part, part.rows_of("all"), title="pooling").features)
        if "shop" in models:
            yield MeasuredRow("shop", ShopScorer(schema, bank.chances, features), None)
        if set(models) & {"adde", "adde-predicted"}:
            adde = trained_adde(
                schema,
                scale.standardise(seen.of(rows)),
                train.labels[rows],
                scale.standardise(seen.of(held_out)),
                train.labels[held_out],
                seed,
                cache,
            )
            for model, told in (("adde", True), ("adde-predicted", False)):
                if model in models:
                    scorer = AddeScorer(adde, features, part.labels, told)
                    yield MeasuredRow(model, scorer, block_embed(adde, features))
    if "m2fashion" in models:
        own = DescriptorScorer.of(bank, schema)
        yield MeasuredRow("m2fashion", own, own.embed, own.embed_queries, has_dial=True)


def trained_adde(
    schema: Schema,
    features: NDArray[np.float32],
    labels: States,
    valid_features: NDArray[np.float32],
    valid_labels: States,
    seed: int,
    folder: Path,
) -> Adde:
    """`train_adde`, or what it gave for the same arguments before, kept in `folder`."""
    recipe = AddeRecipe()
    digest = hashlib.sha256(code_hash(Path(__file__).parent, _CODE).encode())
    digest.update(repr((schema.hash, seed, recipe)).encode())
    for array in (features, labels, valid_features, valid_labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    path = folder / f"adde-{digest.hexdigest()[:24]}.safetensors"
    kept = _read(path, schema, features.shape[1])
    if kept is not None:
        return kept
    adde = train_adde(schema, features, labels, valid_features, valid_labels, seed, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, save({name: x.numpy() for name, x in adde.state_dict().items()}))
    return adde


def _read(path: Path, schema: Schema, width: int) -> Adde | None:
    import torch

    try:
        state = {name: torch.from_numpy(x) for name, x in load_file(path).items()}
    except (OSError, SafetensorError):
        return None
    adde = Adde(schema, width)
    adde.load_state_dict(state)
    return adde.eval().requires_grad_(False)
