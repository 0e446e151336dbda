"""A table as measured: one entry a model and seed, and what they all share; JSON and back.

MAP, chance and their intervals, Top-30 and NDCG in percent; MRR, precision@10 and keep@10 in
[0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.tables.config_toml import config_tables
from benchmarks.tables.keys import Ground, config_hash
from benchmarks.tables.plan import PlannedRun, Setting
from benchmarks.tables.row_file import RowFile
from training.errors import DataError

ALL = "all"


@dataclass(frozen=True)
class RowResult:
    """One trained model, measured.

    Args:
        model: name of the row.
        title: what the rendered table calls it.
        floor: whether it is the untrained floor, which has no spread over seeds.
        seed: of the training.
        all: MAP over all queries.
        attributes: MAP by attribute.
        attribute_mean: plain mean over the attributes.
        ci: 95 % bootstrap interval of `all` over query images, (low, high).
        attributes_ci: likewise by attribute.
        parameters: of the embedder, backbone included, heads left out.
        train_seconds: of all epochs, their validation included; None for the floor.
        setup_seconds: before the first epoch: start-up, and encoding the images for the first run
            of a folder; None if the run was resumed.
        epochs: trained.
        best_epoch: kept, by the validation MAP.
        validation_map: of that epoch.
        combinations: as `retrieve evaluate --json` prints them; None if none could be drawn.
        likeness_only: whether combinations were ranked by likeness alone.
        config: hash of all options and the seed.
        commit: code that measured it.
        machine: that measured it; `train_machine` that trained it.
        likeness, manipulation: as `retrieve evaluate --json` prints them, without the dial's curve;
            None if not measured: no items, or nothing to exchange.
    """

    model: str
    title: str
    floor: bool
    seed: int
    all: float
    attributes: dict[str, float]
    attribute_mean: float
    ci: list[float]
    attributes_ci: dict[str, list[float]]
    parameters: int
    train_seconds: float | None
    setup_seconds: float | None
    epochs: int | None
    best_epoch: int | None
    validation_map: float | None
    combinations: dict[str, Any] | None
    likeness_only: bool
    config: str
    commit: str
    machine: str
    train_machine: str | None
    likeness: dict[str, Any] | None = None
    manipulation: dict[str, Any] | None = None


@dataclass(frozen=True)
class TableResult:
    """All entries of a table and what they share.

    Args:
        table: `map`, `ablations` or `combinations`.
        title: of the table.
        dataset, backbone, split, mode, protocol, definition: what was measured, and how.
        reference: the row that the others are subtracted from.
        order: rows whose All is expected to rise in this order.
        chance: MAP of a random ranking, by attribute, and `all`.
        counts: queries, candidates and queries_without_relevant, by attribute and `all`.
        images: of the split.
        hashes: of the data, the weights, and the code that trains and that evaluates.
        configs: the options of each model, by row name.
        rows: the entries, by row, then seed.
        suffix: of its files' names: another row file or a trial, see `Options.suffix`.
    """

    table: str
    title: str
    dataset: str
    backbone: str
    split: str
    mode: str
    protocol: str
    definition: str
    reference: str
    order: list[str]
    chance: dict[str, float]
    counts: dict[str, dict[str, int]]
    images: int
    hashes: dict[str, str]
    configs: dict[str, dict[str, dict[str, Any]]]
    rows: list[RowResult]
    suffix: str = ""

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"{self.table}-{self.dataset}-{self.backbone}{self.suffix}"

    @property
    def attributes(self) -> list[str]:
        """The columns, without `all`."""
        return [name for name in self.chance if name != ALL]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any, where: str) -> TableResult:
        """Read what `to_json` wrote.

        Raises:
            DataError: if `data` is not of that form.
        """
        try:
            return cls(**{**data, "rows": [RowResult(**row) for row in data["rows"]]})
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{where} is not the result of a table ({error}); measure it without --render-only"
            ) from error


def table_result(
    table: str,
    rows: RowFile,
    setting: Setting,
    ground: Ground,
    measured: Sequence[tuple[PlannedRun, dict[str, Any]]],
    suffix: str = "",
) -> TableResult:
    """Put a table together.

    Args:
        table: `map`, `ablations` or `combinations`.
        rows: the row file.
        setting: dataset and backbone.
        ground: hashes.
        measured: each run and what was measured on it, at least one, by row, then seed.
        suffix: of its files' names.
    """
    first = measured[0][1]
    scores = {**first["attributes"], ALL: first["all"]}
    counted = ("queries", "candidates", "queries_without_relevant")
    return TableResult(
        table=table,
        title=rows.title,
        dataset=setting.dataset,
        backbone=setting.backbone,
        split=first["split"],
        mode=first["mode"],
        protocol=first["protocol"],
        definition=first["definition"],
        reference=rows.reference,
        order=list(rows.order),
        chance={name: score["chance"] for name, score in scores.items()},
        counts={name: {c: score[c] for c in counted} for name, score in scores.items()},
        images=first["images"],
        hashes=asdict(ground),
        configs={run.row.name: config_tables(run.config) for run, _ in measured},
        rows=[_row(run, record) for run, record in measured],
        suffix=suffix,
    )


def _row(run: PlannedRun, record: dict[str, Any]) -> RowResult:
    training = record.get("training") or {}
    changed = record["manipulation"]
    return RowResult(
        model=run.row.name,
        title=run.row.title,
        floor=run.row.floor,
        seed=run.config.seed,
        all=record["all"]["map"],
        attributes={name: score["map"] for name, score in record["attributes"].items()},
        attribute_mean=record["attribute_mean"],
        ci=record["all"]["ci"],
        attributes_ci={name: score["ci"] for name, score in record["attributes"].items()},
        parameters=record["parameters"],
        train_seconds=training.get("seconds"),
        setup_seconds=training.get("setup_seconds"),
        epochs=training.get("epochs"),
        best_epoch=training.get("best_epoch"),
        validation_map=training.get("validation_map"),
        combinations=record["combinations"],
        likeness_only=run.likeness_only,
        config=config_hash(run.config),
        commit=record["commit"],
        machine=record["machine"],
        train_machine=training.get("machine"),
        likeness=record["likeness"],
        manipulation=changed and {name: changed[name] for name in changed if name != "curve"},
    )
