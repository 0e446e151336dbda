"""Galleries drawn from real images: what is drawn, and that an index of it is a real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.speed.drawn_gallery import Images, _unit, draw_images, export_gallery
from benchmarks.speed.measure import index_bytes
from indexer.progress import Silent
from indexer.search.index import open_search
from indexer.store.manifest import Identity, Manifest
from indexer.store.store import open_store
from retrieval.query_vector import draw_requests
from training.descriptor import GARMENT, DescriptorLayout
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("colour", ("red", "green", "blue")),
        Attribute("sleeve", ("long", "short")),
        Attribute("print", ("dots", "stripes", "checks", "none")),
    )
)
LAYOUT = DescriptorLayout(9, ((0, 4), (1, 4), (2, 4), (GARMENT, 8)))


def made_images(layout: DescriptorLayout, schema: Schema, count: int, seed: int = 0) -> Images:
    """Images that nobody took: one value known of each attribute."""
    random = np.random.default_rng(seed)
    chances = np.zeros((count, schema.size), np.float32)
    labels = np.full((count, schema.size), -1, np.int8)
    for number, attribute in enumerate(schema.attributes):
        if attribute.values:
            own = schema.slice_of(number)
            chances[:, own] = random.dirichlet(np.full(len(attribute.values), 0.1), count)
            rows = np.arange(count)
            labels[rows, own.start + chances[:, own].argmax(1)] = 1
    nuance = random.standard_normal((count, layout.nuance), dtype=np.float32)
    return Images(chances, _unit(layout, nuance), labels)


def test_drawn_images_are_images() -> None:
    real = made_images(LAYOUT, SCHEMA, 50)
    drawn = draw_images(real, LAYOUT, SCHEMA, 0, 400)
    assert np.array_equal(drawn.chances[:50], real.chances)
    assert np.array_equal(drawn.labels[:50], real.labels)
    start = 0
    for _, size in LAYOUT.groups:
        lengths = np.linalg.norm(drawn.nuance[:, start : start + size], axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-5)
        start += size
    assert drawn.chances.min() >= 0
    for number in range(3):
        own = SCHEMA.slice_of(number)
        np.testing.assert_allclose(drawn.chances[:, own].sum(1), 1, atol=1e-4)
        # Labels of an attribute are some real image's.
        there = {tuple(row) for row in real.labels[:, own].tolist()}
        assert {tuple(row) for row in drawn.labels[:, own].tolist()} <= there
    # The garment's nuance is near that of some real image, and none twice.
    cosines = drawn.nuance[50:, 12:] @ real.nuance[:, 12:].T
    assert 0.8 < cosines.max(1).mean() < 0.99
    assert len(np.unique(drawn.nuance, axis=0)) == 400


def test_an_exported_gallery_is_an_index(tmp_path: Path) -> None:
    identity = Identity("m", "p", SCHEMA.hash, LAYOUT)
    draft = Manifest(identity, "made", "/", SCHEMA.to_json(), Preprocessing().to_json())
    real = made_images(LAYOUT, SCHEMA, 50)
    export_gallery(draft, real, 300, tmp_path, None, draw_requests, Silent())
    store = open_store(tmp_path)
    drawn = draw_images(real, LAYOUT, SCHEMA, 0, 300)
    descriptors = LAYOUT.pack(drawn.chances, drawn.nuance)
    assert np.array_equal(store.descriptors(), descriptors)
    assert np.array_equal(store.labels(), drawn.labels)
    weights = np.random.default_rng(0).standard_normal((1, LAYOUT.width)).astype(np.float32)
    rows, _ = open_search(store).search(weights, 5)
    assert np.array_equal(np.sort(rows[0]), np.sort(np.argsort(-(descriptors @ weights[0]))[:5]))
    # Descriptor, digest, place in the shard, row and split; a value's labels, two bits an image.
    assert index_bytes(store) == LAYOUT.width + 32 + 4 + 8 + 1 + SCHEMA.size / 4


def test_an_image_of_darns_nine_attributes_takes_at_most_900_bytes(tmp_path: Path) -> None:
    """Of which nobody has the pictures here: 185 values, and the nuance of a model's defaults."""
    counts = (20, 56, 13, 10, 27, 12, 16, 12, 19)
    schema = Schema(
        tuple(
            Attribute(f"attribute {number}", tuple(f"value {number} {n}" for n in range(count)))
            for number, count in enumerate(counts)
        )
    )
    config = ModelConfig()
    groups = [(number, config.nuance) for number in range(len(counts))]
    layout = DescriptorLayout(schema.size, (*groups, (GARMENT, config.garment_nuance)))
    identity = Identity("m", "p", schema.hash, layout)
    draft = Manifest(identity, "made", "/", schema.to_json(), Preprocessing().to_json())
    real = made_images(layout, schema, 50)
    export_gallery(draft, real, 500, tmp_path, None, draw_requests, Silent())
    assert index_bytes(open_store(tmp_path)) <= 900
