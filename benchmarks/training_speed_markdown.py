"""Training speed as Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks.tables.markdown_grid import markdown_grid


def markdown(data: dict[str, Any]) -> str:
    """The figures as Markdown, from what the JSON file holds."""
    header = [f"training M2Fashion on {data['dataset']}, {data['backbone']}", "images/s"]
    header += ["triplets/s, one an anchor and condition", "triplets/s, all compared"]
    cells = []
    for row in data["rows"]:
        rate = row["median"]
        title = f"{row['setting']}: {row['way']} ({row['batch_images']} images a batch)"
        triplets = [f"{rate[column]:,.0f}" for column in ("anchors", "compared")]
        cells.append([title, f"{rate['images']:,.1f}", *triplets])
    for ratio in data["speed_ups"]:
        needed = [f"{ratio['needed_anchors']:,.0f}", f"{ratio['needed_compared']:,.0f}"]
        cells.append([f"{ratio['setting']}: images/s that three passes would need", "", *needed])
    for ratio in data["speed_ups"]:
        low, high = ratio["anchors_range"]
        shown = f"**{ratio['anchors']:.1f}** ({low:.1f} to {high:.1f})"
        title = f"**{ratio['setting']}: effective speed-up**"
        cells.append([title, "", shown, f"{ratio['compared']:,.0f}"])
    return "\n".join(
        [
            *markdown_grid(header, cells),
            "",
            "The effective speed-up is triplets a second over those of three passes a triplet at "
            "their faster batch size, counted conservatively: an anchor that has a positive and a "
            "negative under a condition counts as one triplet, however many it forms. The last "
            "column counts every distinct triplet that the triplet loss compares (each anchor's "
            "drawn positives with all its negatives, under all conditions).",
            "",
            f"{data['images']:,} images of the train split at {data['image_size']} px, kept in "
            f"memory, {data['precision']}; {data['machine']}, threads: {data['threads']}; "
            f"medians of {data['rounds']} rounds of at least {data['seconds']:g} seconds in "
            "turns, the lowest and highest round in brackets.",
            "",
        ]
    )
