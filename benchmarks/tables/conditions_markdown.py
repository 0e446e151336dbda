"""Under which conditions a table was measured, as the end of its Markdown."""

from __future__ import annotations

from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.tables.result import ALL, TableResult
from benchmarks.tables.summary import by_model


def conditions_of(result: TableResult) -> list[str]:
    """Definition, counts, pixels, epochs, seeds, commits, hashes and machines, as Markdown."""
    trained = [row for row in result.rows if not row.floor]
    setup = [row.setup_seconds for row in trained if row.setup_seconds is not None]
    seeds = {
        entries[0].title: ", ".join(str(row.seed) for row in entries)
        for entries in by_model(trained).values()
    }
    same = len(set(seeds.values())) == 1
    shown = next(iter(seeds.values())) if same else "; ".join(f"{t} {s}" for t, s in seeds.items())
    lines = ["## How it was measured", "", result.definition, ""]
    lines += [*_counts(result), ""]
    lines += [f"- split {result.split} ({result.images:,} images), mode {result.mode}"]
    lines += [f"- queries and candidates: {result.protocol}"]
    sizes = {result.configs[row.model]["preprocessing"]["size"] for row in result.rows}
    lines += [f"- pictures of {_listed(sizes)} pixels a side"]
    if trained:
        epochs = {result.configs[row.model]["recipe"]["epochs"] for row in trained}
        lines += [f"- epochs: {_listed(epochs)}", f"- training seeds: {shown}"]
        machines = sorted({row.train_machine for row in trained if row.train_machine})
        lines += [f"- trained on {'; '.join(machines)}"]
    lines += [f"- measured on {'; '.join(sorted({row.machine for row in result.rows}))}"]
    if setup:
        lines += [
            f"- before the first epoch, start-up included: {max(setup):.0f} s for the run that "
            f"brought the images up, {min(setup):.0f} s for one that found that done"
        ]
    lines += [f"- commit {', '.join(sorted({row.commit for row in result.rows}))}"]
    hashes = result.hashes
    lines += [
        f"- SHA-256: data {hashes['data'][:16]}, backbone weights {hashes['weights'][:16]}, "
        f"training code {hashes['training_code'][:16]}, evaluation code "
        f"{hashes['evaluation_code'][:16]}; of each row's options: see the JSON"
    ]
    return lines


def _listed(numbers: set[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))


def _counts(result: TableResult) -> list[str]:
    columns = ("queries", "candidates", "queries_without_relevant")
    rows = [
        [name, *(f"{result.counts[name][column]:,}" for column in columns)]
        for name in (*result.attributes, ALL)
    ]
    return markdown_grid(["attribute", "queries", "candidates", "without relevant"], rows)
