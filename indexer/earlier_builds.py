"""What a build finds in its folder: an earlier build's manifest, and its views that still hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from indexer.carried_views import Earlier, carry_views
from indexer.committed import read_committed
from indexer.encoded_images import DigestTable
from indexer.gallery import open_gallery
from indexer.manifest import Identity, Manifest, ViewEntry
from indexer.progress import Progress
from indexer.store import Store
from indexer.store_file import is_intact
from indexer.views import NamedCondition
from training.checkpoint import Checkpoint
from training.errors import CorruptStoreError


def last_good(out: Path, progress: Progress) -> Manifest | None:
    """The committed version; a remark on how it was found is told."""
    found = read_committed(out)
    if found is not None and found.remark is not None:
        progress.say(found.remark)
    return None if found is None else found.manifest


def mixable(
    read: Callable[[], Manifest | None], out: Path, identity: Identity, progress: Progress
) -> Manifest | None:
    """An earlier manifest whose maps can be mixed with ours, else None, saying why."""
    try:
        manifest = read()
    except CorruptStoreError as error:
        progress.say(f"{error}; meanwhile every image is encoded anew")
        return None
    if manifest is None or manifest.identity == identity:
        return manifest
    ours = asdict(identity)
    names = [name for name, value in asdict(manifest.identity).items() if value != ours[name]]
    progress.say(
        f"what is in {out} is of another build ({', '.join(names)} differ): every "
        "image is encoded anew; a finished index stays usable until then"
    )
    return None


def valid_views(out: Path, old: Manifest | None, manifest: Manifest) -> list[ViewEntry]:
    """Views of the previous version that were made from just the same maps."""
    views = old.views if old is not None else ()
    return [v for v in views if v.content == manifest.content and is_intact(out, v.file)]


def carried(
    store: Store,
    checkpoint: Checkpoint,
    old: Manifest | None,
    built: list[ViewEntry],
    wanted: Sequence[NamedCondition],
    device: str,
    progress: Progress,
) -> list[ViewEntry]:
    """Wanted views of the previous version, brought up to date."""
    have, keys = {view.key for view in built}, {condition.key for condition in wanted}
    if old is None or old.gallery is None:
        return []
    views = [view for view in old.views if view.key in keys - have]
    try:
        before = open_gallery(store.folder, old.gallery)
    except CorruptStoreError:
        return []
    origin = DigestTable(before.digests).find(store.gallery.digests)
    if not views or not (origin >= 0).any():
        return []
    earlier = Earlier(store.folder, len(before.rows), store.dim, origin)
    return carry_views(store, checkpoint.model, views, earlier, device, progress)
