"""Galleries of any size, drawn from the descriptors of real images, and exported as a build does.

A drawn image is a real one of which every chance is multiplied by a random factor and brought back
to the sum within its attribute, so that chances stay chances; its nuance is moved a little by noise
and brought back to length 1. Labels are the real one's. A gallery begins with the real ones.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.build.shards import ShardBuffer, plan_shards
from indexer.build.version import copy_model, write_version
from indexer.encode.encode import EncodedBatch
from indexer.progress import Progress
from indexer.search.choose import Requests, build_search
from indexer.store.gallery import Known
from indexer.store.manifest import DEFAULT_RECALL, Manifest
from indexer.store.store import Store
from training.descriptor import DescriptorLayout, Floats
from training.images.batches import ReadImage
from training.images.read import NO_VERSION
from training.schema import Schema

FACTOR = 0.5
"""Deviation of the logarithm of the factors of chances."""

NOISE = 0.3
"""Length of the noise beside a unit vector of nuance: a cosine of 0.96 is left."""

BLOCK = 8192
"""Images drawn at a time, of one shard."""


@dataclass(frozen=True)
class Images:
    """What a model and a catalogue say of n images: chances [n, K], unit vectors of nuance side by
    side [n, N], label states [n, K]."""

    chances: Floats
    nuance: Floats
    labels: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.labels)


def images_of(store: Store) -> Images:
    """All images of an index."""
    descriptors, layout = store.descriptors(), store.layout
    chances, nuance = layout.chances(descriptors), layout.nuance_of(descriptors)
    return Images(chances, nuance, np.array(store.labels()))


def draw_images(
    real: Images, layout: DescriptorLayout, schema: Schema, start: int, stop: int, seed: int = 0
) -> Images:
    """Images `start` to `stop` of an endless gallery, which begins with the real ones; `start` is a
    multiple of what other calls for the same gallery draw at a time."""
    random = np.random.default_rng([seed, start])
    count = stop - start
    own = random.integers(len(real), size=count)
    before, labels = real.chances[own], real.labels[own]
    after = before * np.exp(FACTOR * random.standard_normal(before.shape, dtype=np.float32))
    # A column a value, its attribute's sum in each.
    after *= _sums(schema, before) / np.maximum(_sums(schema, after), 1e-12)
    np.minimum(after, 1, out=after)
    sizes = np.repeat([n for _, n in layout.groups], [n for _, n in layout.groups])
    deviation = (NOISE / np.sqrt(np.maximum(sizes, 1))).astype(np.float32)
    noise = deviation * random.standard_normal((count, layout.nuance), dtype=np.float32)
    nuance = _unit(layout, real.nuance[own] + noise)
    first = max(0, min(len(real) - start, count))
    after[:first] = real.chances[start : start + first]
    nuance[:first] = real.nuance[start : start + first]
    labels[:first] = real.labels[start : start + first]
    return Images(after, nuance, labels)


def export_gallery(
    draft: Manifest,
    real: Images,
    size: int,
    folder: Path,
    model: Path | None,
    requests: Requests,
    progress: Progress,
) -> float:
    """Write an index of `size` images, drawn from the `real` ones, into an empty folder.

    A copy of the `model` goes into it; without one it opens as a `Store` alone. `requests` makes
    the query vectors with which recall is measured. Returns the seconds of shards, gallery file and
    search, drawing apart.
    """
    schema, layout = Schema.from_json(draft.schema), draft.identity.layout
    if model is not None:
        draft = replace(draft, model_files=copy_model(model, folder))
    paths = [f"{number // 1000:05d}/{number:08d}.jpg" for number in range(size)]
    plans = plan_shards(np.arange(size), paths)
    labels = np.empty((size, schema.size), np.int8)
    seconds, entries = 0.0, []
    progress.start("images drawn", size)
    for plan in plans:
        buffer = ShardBuffer(plan, layout)
        for start in range(0, len(plan.paths), BLOCK):
            places = list(range(start, min(start + BLOCK, len(plan.paths))))
            first = int(plan.rows[0]) + start
            drawn = draw_images(real, layout, schema, first, first + len(places))
            labels[first : first + len(places)] = drawn.labels
            digests = np.random.default_rng(first).bytes(32 * len(places))
            for place in places:
                digest = digests[32 * (place - start) :][:32]
                buffer.images[place] = ReadImage(None, "", digest, NO_VERSION)
            started = time.perf_counter()
            buffer.add(places, EncodedBatch(drawn.chances, drawn.nuance))
            seconds += time.perf_counter() - started
        started = time.perf_counter()
        entries.append(buffer.commit(folder))
        seconds += time.perf_counter() - started
        progress.advance(len(plan.paths))
    known = Known(labels, np.full(size, "test"), np.arange(size))
    started = time.perf_counter()
    write_version(
        folder,
        replace(draft, shards=tuple(entries)),
        plans,
        known,
        lambda store: build_search(store, DEFAULT_RECALL, None, requests, progress),
    )
    return seconds + time.perf_counter() - started


def _sums(schema: Schema, chances: Floats) -> Floats:
    """For every value the sum of its attribute's chances: [n, K] -> [n, K]."""
    starts = [
        schema.slice_of(number).start
        for number, attribute in enumerate(schema.attributes)
        if attribute.values
    ]
    sizes = np.diff([*starts, schema.size])
    sums: Floats = np.repeat(np.add.reduceat(chances, starts, axis=1), sizes, axis=1)
    return sums


def _unit(layout: DescriptorLayout, nuance: Floats) -> Floats:
    """Each group's vector brought to length 1; zeros stay."""
    start = 0
    for _, size in layout.groups:
        own = nuance[:, start : start + size]
        own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-6)
        start += size
    return nuance
