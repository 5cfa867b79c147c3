"""What a run costs at 10^8 and 10^9 directed edges, from the measured curve, for docs/where-it-runs.md.

    python benchmarks/costs.py           # prints the table
    python benchmarks/costs.py --write   # and puts it into the page

A stage's time at ten times the size is its time at the largest size measured (benchmarks/results/scale.json)
times its growth over the last tenfold, at least ten; its memory grows as it did then, at most tenfold. All
cores of the machine are paid for while a stage runs, and the memory it needs.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CURVE, PAGE = HERE / "results" / "scale.json", HERE.parent / "docs" / "where-it-runs.md"
_BLOCK = re.compile(r"(<!-- costs -->\n).*(<!-- end of costs -->)", re.DOTALL)
CORE_HOUR, GB_HOUR = 0.05, 0.006
"""Prices of a core and of a GB of memory for an hour: round figures, in any currency. Put in your own."""
_EDGES_A_NODE = 10


def predicted(curve: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a stage: seconds and bytes at the largest size measured, and at ten times that."""
    sizes = sorted(map(int, curve))
    largest, before = (curve[str(sizes[place])]["stages"] for place in (-1, -2))
    rows = []
    for stage, now in largest.items():
        then = before[stage]
        growth = max(10.0, now["seconds"] / then["seconds"])
        memory_growth = min(10.0, max(1.0, now["peak_rss_bytes"] / then["peak_rss_bytes"]))
        rows.append(
            {
                "stage": stage,
                "measured": (now["seconds"], now["peak_rss_bytes"]),
                "predicted": (now["seconds"] * growth, now["peak_rss_bytes"] * memory_growth),
            }
        )
    return rows


def cost(seconds: float, num_bytes: float, *, cores: int) -> float:
    """Of a stage, at the prices above."""
    return seconds / 3600 * (cores * CORE_HOUR + num_bytes / 1e9 * GB_HOUR)


def table(curve: dict[str, Any]) -> str:
    """The Markdown table."""
    largest = str(max(map(int, curve)))
    cores, edges = curve[largest]["machine"]["num_cpus"], int(largest) * _EDGES_A_NODE
    lines = [
        f"| stage | {edges:.0e} edges, measured | cost | {10 * edges:.0e} edges, predicted | cost |",
        "|---|---|---|---|---|",
    ]
    totals = {"measured": 0.0, "predicted": 0.0}
    for row in predicted(curve):
        cells = []
        for which in totals:
            seconds, num_bytes = row[which]
            price = cost(seconds, num_bytes, cores=cores)
            totals[which] += price
            cells += [f"{_time(seconds)}, {num_bytes / 1e9:.1f} GB", f"{price:.3f}"]
        lines.append(f"| {row['stage']} | {' | '.join(cells)} |")
    disk = curve[largest]["peak_disk_bytes"] / 1e9
    lines.append(
        f"| all | {disk:.0f} GB of disk | {totals['measured']:.3f} | {10 * disk:.0f} GB of disk | "
        f"{totals['predicted']:.3f} |"
    )
    return "\n".join(lines) + "\n"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    options = parser.parse_args()
    found = table(json.loads(CURVE.read_text()))
    print(found)
    if options.write:
        page = PAGE.read_text()
        PAGE.write_text(_BLOCK.sub(lambda match: match[1] + found + match[2], page))


if __name__ == "__main__":
    main()
