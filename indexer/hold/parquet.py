"""An index as a Parquet file: a row an image, for whatever reads tables.

    row          its row in the index            path     relative to the root
    item         number of its product or null   digest   SHA-256 of the file
    descriptor   bytes                           labels   names of the values it is known to have
    absent       names of those it is known not to have
    chances      probability of each value, in the order of the schema
    nuance       unit vectors side by side
    c_NAME       a column of the payload, as the catalogue has it

The file's metadata has, under `retrieve`, JSON: schema, layout, root, dataset and model.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from indexer.hold.database import shown
from indexer.hold.draft import Draft
from indexer.progress import Progress
from training.errors import ResourceError
from training.files import as_resource_error, commit, temporary_file


def export_parquet(draft: Draft, out: Path, progress: Progress) -> int:
    """Write the file, whole or not at all; returns its rows. Raises ResourceError."""
    try:
        import polars
    except ImportError as error:
        raise ResourceError(
            'polars is missing: pip install "m2fashion-retrieval[parquet]"'
        ) from error
    local, schema = draft.local, draft.local.schema
    names = np.array(schema.value_names, dtype=object)
    progress.start("images exported", len(draft))
    frames = []
    for rows in draft.chunks(np.arange(len(draft))):
        known = local.records(rows)
        data: dict[str, Any] = {
            "row": rows,
            "path": [shown(path) for path in known.paths],
            "item": [None if item < 0 else item for item in known.items.tolist()],
            "digest": [own.tobytes() for own in known.digests],
            "descriptor": [own.tobytes() for own in known.descriptors],
            "labels": [names[own == 1].tolist() for own in known.labels],
            "absent": [names[own == -1].tolist() for own in known.labels],
            "chances": local.layout.chances(known.descriptors),
            "nuance": local.layout.nuance_of(known.descriptors),
        }
        kinds: dict[str, Any] = {
            "row": polars.Int64,
            "path": polars.String,
            "item": polars.Int64,
            "digest": polars.Binary,
            "descriptor": polars.Binary,
            "labels": polars.List(polars.String),
            "absent": polars.List(polars.String),
            "chances": polars.Array(polars.Float32, schema.size),
            "nuance": polars.Array(polars.Float32, local.layout.nuance),
        }
        for name in local.columns:
            cells = [own.get(name) for own in known.payload]
            data[f"c_{shown(name)}"] = [None if cell is None else shown(cell) for cell in cells]
            kinds[f"c_{shown(name)}"] = polars.String
        frames.append(polars.DataFrame(data, schema=kinds))
        progress.advance(len(rows))
    about = {
        "dataset": local.dataset,
        "root": str(local.root),
        "model": local.model,
        "layout": asdict(local.layout),
        "schema": draft.store.manifest.schema,
    }
    whole = polars.concat(frames)
    with as_resource_error(out), temporary_file(out.parent) as temporary:
        whole.write_parquet(temporary, metadata={"retrieve": json.dumps(about)})
        commit(temporary, out)
    return len(whole)
