"""The views of an index, built ahead and warm, as one list."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from indexer.index_choice import FLAT
from indexer.store import Store
from indexer.warm_views import WarmViews


@dataclass(frozen=True)
class ListedView:
    """A view and what it costs.

    Args:
        key: short hash of the condition.
        name: the condition in words.
        kind: `built` ahead with the index, or `warm`.
        rows: M.
        bytes: of its files.
        factory: what finds candidates in it; `Flat` if it is searched whole.
        refine: candidates a hit that are compared exactly; 1 if it is searched whole.
        nprobe: inverted lists a query reads; 0 without lists.
        recall: measured recall@10 of the approximate index; None if it is searched whole.
        seconds: that it took to make; None if that is not known.
        last_used: local time; None if that is not kept, as for views built ahead.
    """

    key: str
    name: str
    kind: Literal["built", "warm"]
    rows: int
    bytes: int
    factory: str
    refine: int
    nprobe: int
    recall: float | None
    seconds: float | None
    last_used: datetime | None

    @property
    def searched_with(self) -> str:
        """`PQ128x4fs, refined x16` for a person."""
        if self.factory == FLAT:
            return FLAT
        lists = f", {self.nprobe} lists" if self.nprobe else ""
        return f"{self.factory}{lists}, refined x{self.refine}"

    def to_json(self) -> dict[str, Any]:
        """All of it, the time in ISO 8601 with its zone."""
        used = None if self.last_used is None else self.last_used.isoformat(timespec="seconds")
        return asdict(self) | {"last_used": used}


def list_views(store: Store, warm: WarmViews) -> list[ListedView]:
    """Views built ahead, in the index's order, then warm ones, the last used first."""
    out = []
    for view in store.manifest.views:
        found = view.approximate
        own = [view.seconds, found.seconds if found else None]
        seconds = [part for part in own if part is not None]
        out.append(
            ListedView(
                key=view.key,
                name=view.name,
                kind="built",
                rows=len(store),
                bytes=view.file.size + (found.file.size if found else 0),
                factory=found.factory if found else FLAT,
                refine=found.refine if found else 1,
                nprobe=found.nprobe if found else 0,
                recall=found.recall if found else None,
                seconds=sum(seconds) if seconds else None,
                last_used=None,
            )
        )
    for entry in warm.list():
        used = datetime.fromtimestamp(entry.last_used_ns / 1e9).astimezone()
        out.append(
            ListedView(
                key=entry.key,
                name=entry.name,
                kind="warm",
                rows=entry.rows,
                bytes=entry.file.size,
                factory=FLAT,
                refine=1,
                nprobe=0,
                recall=None,
                seconds=entry.seconds,
                last_used=used,
            )
        )
    return out
