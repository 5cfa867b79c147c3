"""The robustness table as Markdown: attacks down, depths and victims across."""

import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flows.study_tables import markdown_table, plain_text

if TYPE_CHECKING:
    from flows.robustness import RobustnessCell, RobustnessRecord

_ROWS = {
    "random": "RandSampling",
    "grad_argmax": "GradArgmax",
    "genetic": "Genetic",
    "rl_s2v": "RL-S2V",
    "rl_s2v_best": "RL-S2V, best evaluation",
    "exhaustive": "Exhaustive",
}
_HOW = (
    "One edge is added to each test graph, within a component, so that its class stays what it was. Graphs "
    "that the victim misclassifies as they are count as errors and are left alone, so no row is above "
    "`none`. Exhaustive is the exact worst case. RL-S2V is the last evaluation of its training; its best "
    "evaluation, the original's way of reporting, is chosen by its result. Percent, mean ± sample standard "
    "deviation over seeds."
)


def robustness_markdown(record: "RobustnessRecord") -> str:
    """Accuracy under attack, success of the attacks, what failed, notes.

    Args:
        record: of the study, finished or not.
    """
    finished = [cell for cell in record.cells if cell.state == "finished"]
    lines = ["# Robustness to one added edge", "", _HOW, ""]
    lines += [f"{len(finished)} of {record.num_planned} cells finished.", ""]
    if finished:
        lines += ["## Accuracy", "", *_table(finished, _accuracy, first="none"), ""]
        lines += ["## Attack success on graphs that were right", "", *_table(finished, _success), ""]
    if record.failed:
        rows = [[str(c.num_rounds), c.training, str(c.seed), c.reason or ""] for c in record.failed]
        lines += ["## Cells that failed", "", *markdown_table(["K", "victim", "seed", "reason"], rows), ""]
    notes = dict.fromkeys(note for cell in finished for note in cell.notes)
    lines += ["## Notes", "", *(f"- {plain_text(note)}" for note in notes), ""] if notes else []
    return "\n".join(lines).rstrip() + "\n"


def _table(
    cells: Sequence["RobustnessCell"],
    value: Callable[["RobustnessCell", str], float | None],
    *,
    first: str | None = None,
) -> list[str]:
    places = list(dict.fromkeys((cell.num_rounds, cell.training) for cell in cells))
    names = [name for name in _ROWS if any(name in cell.attacks for cell in cells)]
    rows = []
    for name in [first, *names] if first else names:
        row = [_ROWS.get(name, name)]
        for place in places:
            values = [value(cell, name) for cell in cells if (cell.num_rounds, cell.training) == place]
            row.append(_spread([found for found in values if found is not None]))
        rows.append(row)
    return markdown_table(["attack", *(f"K={depth} {training}" for depth, training in places)], rows)


def _accuracy(cell: "RobustnessCell", name: str) -> float | None:
    return cell.clean_accuracy if name == "none" else cell.attacks.get(name, {}).get("accuracy")


def _success(cell: "RobustnessCell", name: str) -> float | None:
    return cell.attacks.get(name, {}).get("success")


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{100 * statistics.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.2f}"
