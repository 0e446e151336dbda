"""`retrieve names`: what an index knows, counted."""

from __future__ import annotations

import json

from small_index import Shop, run

from retrieval.engine import Engine


def test_names_are_counted(shop: Shop, capsys) -> None:
    code, out, _ = run(capsys, "names", shop.index, "--json")
    assert code == 0
    told = json.loads(out)
    store = Engine.open(shop.index, device="cpu").store
    labels, schema = store.labels(), store.schema
    assert [row["value"] for row in told["values"]] == list(schema.value_names)
    chances = store.layout.chances(store.descriptors())
    for flat, row in enumerate(told["values"]):
        number = int(schema.attribute_of[flat])
        own = schema.slice_of(number)
        assert row["labelled"] == sum(state == 1 for state in labels[:, flat].tolist())
        best = [own.start + int(image.argmax()) for image in chances[:, own]]
        several = (chances[:, flat] > 0.5).sum()
        assert row["seen"] == (several if schema.multi[number] else best.count(flat))
    assert told["columns"] == list(store.payload)
    code, out, _ = run(capsys, "names", shop.index)
    assert code == 0
    assert all(name in out for name in schema.value_names)
