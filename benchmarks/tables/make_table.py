"""One command a table: plan, measure what is missing, put together, write, print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.tables.keys import Ground, ground
from benchmarks.tables.measure import measure_runs
from benchmarks.tables.options import Options
from benchmarks.tables.plan import PlannedRun, Setting, plan_run, plan_runs
from benchmarks.tables.result import TableResult, table_result
from benchmarks.tables.row_file import RowFile, read_row_file
from benchmarks.tables.run_store import RunStore
from benchmarks.tables.runner import CommandLineRunner, source_options
from benchmarks.write_results import write_results
from retrieval.console import print_json, stderr, stdout
from training.datasets import ADAPTERS, load_dataset
from training.errors import DataError, ResourceError

Render = Callable[[TableResult], str]
Draw = Callable[[TableResult, Path], None]

MOST_SEEDS = 16
"""Runs of earlier calls with seeds below this are shown in a table as well."""


def make_table(
    table: str, rows_file: Path, options: Options, render: Render, draw: Draw | None
) -> int:
    """Make a table and print it.

    Args:
        table: `map`, `ablations` or `combinations`.
        rows_file: its rows, unless the options name another file.
        options: of the command line.
        render: gives its Markdown.
        draw: writes its chart; None: it has none.

    Returns:
        0, the exit code.

    Raises:
        UsageError: an unknown row, or a wrong row file.
        DataError: nothing to render, missing weights, a dataset without a test split.
    """
    make = _rendered if options.render_only else _measured
    result = make(table, rows_file, options)
    markdown = render(result)
    write_results(options.results, result.stem, result.to_json(), markdown)
    if draw is not None:
        try:
            draw(result, options.results / f"{result.stem}.png")
        except ResourceError as error:  # the figures are there all the same
            stderr.print(str(error), markup=False, soft_wrap=True)
    if options.as_json:
        print_json(result.to_json())
    else:
        stdout.print(markdown, markup=False, soft_wrap=True)
    return 0


def _rendered(table: str, rows_file: Path, options: Options) -> TableResult:
    stem = f"{table}-{_dataset_name(options)}-{options.backbone}{options.suffix(rows_file)}"
    path = options.results / f"{stem}.json"
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"nothing to render in {path}: {error}; drop --render-only") from error
    return TableResult.from_json(data, str(path))


def _dataset_name(options: Options) -> str:
    """What the dataset would be called, could it be loaded."""
    if options.name.casefold() == "catalogue" and options.root is not None:
        return options.root.resolve().name
    if options.name.casefold() in ADAPTERS:
        return options.name.casefold()
    return Path(options.name).expanduser().resolve().name


def _measured(table: str, rows_file: Path, options: Options) -> TableResult:
    rows = read_row_file(options.rows_file or rows_file)
    chosen = rows.chosen(options.rows)
    dataset = load_dataset(options.name, options.root, item_column=options.item_column)
    if len(dataset.rows_of("test")) == 0:
        raise DataError(f"{dataset.name} has no images in its test split, which tables measure")
    weights = _resolved(options.weights)
    setting = Setting(dataset.name, options.backbone, weights, options.epochs, options.image_size)
    hashes = ground(dataset, weights)
    runs = plan_runs(rows, chosen, options.seeds, setting, hashes)
    store = RunStore(options.work)
    source = source_options(options.name, options.root, options.item_column)
    runner = CommandLineRunner(dataset, source, options.device, options.workers)
    measure_runs(
        runs, store, runner, options.device, _tell, hashes, lambda: ground(dataset, weights)
    )
    everything = _everything(rows, setting, hashes, store)
    return table_result(table, rows, setting, hashes, everything, options.suffix(rows_file))


def _everything(
    rows: RowFile, setting: Setting, hashes: Ground, store: RunStore
) -> list[tuple[PlannedRun, dict[str, Any]]]:
    """All that the store holds for this table, also from earlier calls for other rows or seeds."""
    out = []
    for row in rows.rows.values():
        for seed in range(1 if row.floor else MOST_SEEDS):
            run = plan_run(rows, row, seed, setting, hashes)
            record = store.measured(run)
            if record is not None:
                out.append((run, record))
    return out


def _resolved(weights: str | None) -> str | None:
    """A weights file by its full path: the run's config is read from elsewhere; a name as it is."""
    if weights is None or not (weights.endswith(".safetensors") or "/" in weights):
        return weights
    return str(Path(weights).expanduser().resolve())


def _tell(line: str) -> None:
    stderr.print(line, markup=False, soft_wrap=True)
