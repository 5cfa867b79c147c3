"""What was aimed at and what falls short of it, and what lies below an untrained control."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kept_runs import CONTROLS, TITLES, Record, clusters_raw_rows, group, scores, spread, title

from flows.study_record import StudyRecord, SummaryRow
from flows.study_tables import markdown_table

SOURCES = ("paper", "code", "table", "rerun", "measured")
_COMPARED = {
    "node_classification": ("accuracy",),
    "graph_classification": ("accuracy",),
    "clustering": ("accuracy", "nmi"),
    "link_prediction": ("auc",),
}


class Comparison(NamedTuple):
    """A figure of ours beside its aim, in percent."""

    dataset: str
    name: str
    metric: str
    row: Record
    aim: float
    is_own: bool
    """Whether the aim is the method's own, and not that of every method."""

    @property
    def gap(self) -> float:
        """Ours less the aim, both as printed: nobody misses an aim by 0.00."""
        return _gap(100 * self.row["value"], self.aim)


def _gap(ours: float, other: float) -> float:
    """The difference of two figures in percent as they are printed."""
    return round(round(ours, 2) - round(other, 2), 2)


def aims_table(dataset: str, task: str, protocol: str, runs: Sequence[Record], figures: Record) -> list[str]:
    """Each figure with an aim: ours, the aim, how far they are apart, and the best that is published."""
    rows = []
    for one in _comparisons(dataset, task, protocol, runs, figures):
        aim = f"{one.aim:.2f}" + (" (its own)" if one.is_own else "")
        best = best_published(figures, dataset, task, protocol, one.metric)
        name = f"{one.name}, {one.row['protocol']}" if task == "clustering" else one.name
        rows.append([name, TITLES[one.metric], spread(one.row), aim, _verdict(one.gap), best])
    header = ["method", "metric", "ours", "aim", "ours and the aim", "best published"]
    return markdown_table(header, rows) if rows else []


def _verdict(gap: float) -> str:
    if gap < 0:
        return f"**missed by {-gap:.2f}**"
    return f"reached, +{gap:.2f}" if gap else "reached"


def best_published(figures: Record, dataset: str, task: str, protocol: str, metric: str) -> str:
    """The highest published figure that is printed and whose epoch was not chosen with labels."""
    found = [
        (row[dataset][table["metrics"].index(metric)], row)
        for table in figures["tables"]
        if (table["task"], table["protocol"]) == (task, protocol) and metric in table["metrics"]
        for row in table["rows"]
        if dataset in row and row["tag"] in SOURCES and row["tag"] != "measured" and row.get("class") != "O"
    ]
    found = [(value, row) for value, row in found if not math.isnan(value)]
    if not found:
        return "-"
    value, row = max(found, key=lambda item: item[0])
    kind = f", class {row['class']}" if "class" in row else ""
    return f"{value:.2f} ({row['method']}{kind})"


def below_aims(runs: Sequence[Record], figures: Record) -> list[str]:
    """For every aim that the best of our runs misses: that run, largest gap first."""
    best: dict[tuple[str, ...], Comparison] = {}
    for dataset, task, protocol in _places(runs):
        own = [run for run in runs if run["config"]["dataset"]["name"] == dataset]
        for one in _comparisons(dataset, task, protocol, own, figures):
            place = (dataset, task, one.row["protocol"], one.metric, one.name if one.is_own else "")
            if place not in best or one.row["value"] > best[place].row["value"]:
                best[place] = one
    missed = sorted((one for one in best.values() if one.gap < 0), key=lambda one: one.gap)
    rows = [
        [one.dataset, one.row["protocol"], one.name, TITLES[one.metric], spread(one.row), f"{one.aim:.2f}",
         f"{one.gap:.2f}"]
        for one in missed
    ]  # fmt: skip
    header = ["data set", "protocol", "best of ours", "metric", "ours", "aim", "gap"]
    return markdown_table(header, rows) if rows else []


def below_controls(runs: Sequence[Record], studies: Sequence[StudyRecord]) -> list[str]:
    """Every method whose mean lies below the smoothed features or the untrained encoder."""
    rows = [line for run in runs for line in _below_in_run(run)]
    rows += [line for study in studies for row in study.summary for line in _below_in_study(study, row)]
    header = ["data set", "protocol", "method", "metric", "ours", "control", "its figure", "gap"]
    return markdown_table(header, rows) if rows else []


def _below_in_run(run: Record) -> Iterator[list[str]]:
    dataset = run["config"]["dataset"]["name"]
    for task, protocol in dict.fromkeys((row["task"], group(row)) for row in run["metrics"]):
        for metric in _COMPARED.get(task, ()):
            own = dict(scores(run, task, protocol, metric))
            if clusters_raw_rows(run) and "consensus-final" in own:
                own.setdefault("kmeans-raw", own["consensus-final"])
            for embedding, control in CONTROLS.items():
                for name, row in scores(run, task, protocol, metric, embedding=embedding):
                    if name in own and (gap := _gap(100 * own[name]["value"], 100 * row["value"])) < 0:
                        place = [dataset, own[name]["protocol"], title(run), TITLES[metric]]
                        yield [*place, spread(own[name]), control, spread(row), f"{gap:.2f}"]


def _below_in_study(study: StudyRecord, row: SummaryRow) -> Iterator[list[str]]:
    task, _, rest = row.figure.partition("/")
    protocol, _, metric = rest.partition("/")
    if metric not in _COMPARED.get(task, ()):
        return
    for embedding, value in row.controls.items():
        if (gap := _gap(100 * row.mean, 100 * value)) < 0:
            point = "".join(f", {field.rpartition('.')[2]} {value}" for field, value in row.point.items())
            own = f"{100 * row.mean:.2f}" + ("" if row.std is None else f" ± {100 * row.std:.2f}")
            name = f"{row.variant}{point} (study `{study.study.name}`)"
            control = CONTROLS.get(embedding, embedding)
            yield [row.dataset, protocol, name, TITLES[metric], own, control, f"{100 * value:.2f}",
                   f"{gap:.2f}"]  # fmt: skip


def _places(runs: Sequence[Record]) -> list[tuple[str, str, str]]:
    places = ((run["config"]["dataset"]["name"], m["task"], group(m)) for run in runs for m in run["metrics"])
    return list(dict.fromkeys(places))


def _comparisons(
    dataset: str, task: str, protocol: str, runs: Sequence[Record], figures: Record
) -> Iterator[Comparison]:
    """Every figure of ours with the aim it has: the method's own if there is one, else that of all.

    Settings that were chosen with labels, which no user has, reach and miss nothing.
    """
    targets = [t for t in figures["targets"] if (t["task"], t["protocol"]) == (task, protocol)]
    targets = [target for target in targets if dataset in target["values"]]
    for run in runs:
        if run.get("chosen_with_labels"):
            continue
        method = run["config"]["method"]["name"]
        own = [target for target in targets if target.get("method") == method]
        for target in own or [target for target in targets if "method" not in target]:
            for metric, aim in zip(target["metrics"], target["values"][dataset], strict=True):
                for _, row in scores(run, task, protocol, metric):
                    yield Comparison(dataset, title(run), metric, row, aim, bool(own))
