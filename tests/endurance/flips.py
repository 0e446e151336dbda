"""Fault 7: one flipped bit in a file of an index."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from forked import run_forked
from read_everything import read_everything
from small_gallery import SmallGallery, make_gallery

from training.errors import RetrieveError

KINDS = {
    "manifest": "manifest.json",
    "shard": "shards/*.h5",
    "gallery": "gallery-*.h5",
    "search": "search-*.faiss",
    "model": "model/*/*",
}
"""Kind of file -> where such files lie in an index."""

FACTORY = "IVF4"
"""So that there is a file of inverted lists."""

_COUNT = 40


def make_target(folder: Path) -> SmallGallery:
    """A gallery with an index `index/` that has files of every kind."""
    gallery = make_gallery(folder, _COUNT)
    gallery.build(folder / "index", index_factory=FACTORY)
    return gallery


def flips(index: Path, kind: str, trials: int, seed: int) -> list[str | None]:
    """Flip one random bit of one file of a kind, read the index, and flip it back; what went wrong
    in each trial, if anything.

    Survived: it is refused, naming the file, before anything uses it; or nothing that is read
    differs.

    Args:
        index: an intact index.
        kind: one of `KINDS`.
        trials: flips.
        seed: of files and bits.
    """
    ended = run_forked(lambda: list(_troubles(index, kind, trials, seed)), limit=60 + trials)
    assert not ended.code, f"the reader: {'hung' if ended.hung else ended.code} {ended.said}"
    return list(ended.result)


def _troubles(index: Path, kind: str, trials: int, seed: int) -> Iterator[str | None]:
    draw = random.Random(f"{seed} {kind}")
    truth = read_everything(index)
    files = sorted(path for path in index.glob(KINDS[kind]) if path.stat().st_size)
    assert files, f"the index has a {kind}"
    for _ in range(trials):
        path = draw.choice(files)
        content = path.read_bytes()
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        trouble = trouble_with(index, path, truth)
        path.write_bytes(content)
        yield trouble and f"{path.name}, byte {place}, bit {bit}: {trouble}"


def trouble_with(index: Path, path: Path, truth: dict[str, str]) -> str | None:
    """Read an index with a damaged file; what is not as promised, None if all is.

    Args:
        index: the index.
        path: the damaged file.
        truth: what `read_everything` said before.
    """
    try:
        found = read_everything(index)
    except RetrieveError as error:
        named = path.name in str(error)
        return None if named and error.exit_code in (3, 4) else f"refused, but: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    wrong = [part for part in truth if found.get(part) != truth[part]]
    return f"read as if it were whole; {', '.join(wrong)} differ" if wrong else None
