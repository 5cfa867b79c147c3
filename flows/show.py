"""What the command line prints: rich tables, nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pydantic import BaseModel

    from flows.compare import Comparison
    from flows.config import PipelineConfig
    from flows.method_switch import MethodSwitch
    from flows.record import Metric, RunRecord
    from flows.study_record import StudyRecord

_EMBEDDINGS = ("method", "smoothed", "random_init")
_HEADLINE = ("accuracy", "macro_f1", "nmi", "ari", "auc", "average_precision")


def console() -> Console:
    """Standard output; tables keep a readable width when it is not a terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=max(found.width, 120))


def error(text: str) -> None:
    """One line on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"gclflow: {text}", markup=False)


def warning(text: str) -> None:
    """One line on standard error, told before a run that goes on all the same."""
    error(f"warning: {text}")


def switched(switch: "MethodSwitch", config: "PipelineConfig", *, origin: str) -> None:
    """One line before a run: what a configuration made for another method had to give up.

    Args:
        switch: what became of it.
        config: the configuration of the run.
        origin: the preset or file, in words.
    """
    changed = []
    for key, before in switch.replaced.items():
        section, _, field = key.partition(".")
        if (now := getattr(getattr(config, section), field)) != before:
            told = _assignments({key: now})
            changed.append(told if before is None else f"{told} (was {before})")
    parts = [f"method {switch.name} instead of {switch.before}, which {origin} was made for"]
    if changed:
        parts.append(f"its own settings: {', '.join(changed)}")
    parts.append(f"kept of the method: {', '.join(switch.kept) or 'nothing'}")
    console().print("; ".join(parts), markup=False, soft_wrap=True)


def run(record: "RunRecord", *, out: Path, defaults: Mapping[str, Any] | None = None) -> None:
    """The stages, the metrics beside their controls, and where the report lies.

    Args:
        record: the run.
        out: where its results lie.
        defaults: settings that it took from its method's defaults, by full key.
    """
    screen = console()
    if record.preset:
        screen.print(f"preset [bold]{record.preset}[/] (--preset none declines it)")
    if defaults:
        taken = f"defaults of {record.config['method']['name']}: {_assignments(defaults)}"
        screen.print(taken, markup=False, soft_wrap=True)
    screen.print(_stage_table(record))
    if record.metrics:
        screen.print(_metric_table(record.metrics, record.validation_metrics))
    if record.oracle_metrics:
        screen.print(_oracle_table(record.oracle_metrics))
    for note in record.notes:
        screen.print(f"note: {note}", markup=False)
    folders = [out] if len(record.seeds) == 1 else [out / f"seed-{seed}" for seed in record.seeds]
    places = (
        ", ".join(str(folder / "report.html") for folder in folders)
        if "report" in _ran(record)
        else "none, the run stopped before"
    )
    screen.print(f"results in {out}; report: {places}", markup=False, soft_wrap=True)


def _ran(record: "RunRecord") -> set[str]:
    return {stage["stage"] for stage in record.stages}


def _stage_table(record: "RunRecord") -> Table:
    table = Table(title="Stages", title_justify="left")
    for name, justify in (("stage", "left"), ("state", "left"), ("seconds", "right"), ("peak MB", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("contract checks", justify="right")
    table.add_column("why", overflow="fold")
    for stage in record.stages:
        contracts = stage["contracts"]
        name = stage["stage"] if len(record.seeds) == 1 else f"{stage['stage']} (seed {stage['seed']})"
        table.add_row(
            name,
            stage["state"],
            f"{stage['seconds']:.2f}",
            f"{stage['peak_rss_bytes'] / 2**20:.0f}",
            f"{contracts['passed']} passed"
            + (f", {contracts['failed']} failed" if contracts["failed"] else ""),
            escape(stage["reason"]),
        )
    return table


def _metric_table(metrics: Sequence["Metric"], validation: Sequence["Metric"]) -> Table:
    """One row a figure; the method beside its controls, and on validation nodes."""
    table = Table(title="Metrics (mean ± standard deviation)", title_justify="left")
    for name in ("task", "protocol", "metric"):
        table.add_column(name)
    for name in (*_EMBEDDINGS, "method, validation"):
        table.add_column(name, justify="right")
    table.add_column("over")
    cells: dict[tuple[str, str, str], dict[str, Metric]] = {}
    for metric in metrics:
        if metric.metric in _HEADLINE:
            cells.setdefault((metric.task, metric.protocol, metric.metric), {})[metric.embedding] = metric
    held = {(m.task, m.protocol, m.metric): m for m in validation if m.embedding == "method"}
    for identity, row in cells.items():
        first = next(iter(row.values()))
        values = [_value(row.get(name)) for name in _EMBEDDINGS]
        table.add_row(*identity, *values, _value(held.get(identity)), f"{first.n} {first.over}")
    return table


def _oracle_table(metrics: Sequence["Metric"]) -> Table:
    """What labels would have chosen: a table of its own, under a title that says so."""
    title = "Chosen with labels, not a result: the best check of the training"
    table = Table(title=title, title_justify="left")
    for name, justify in (("protocol", "left"), ("metric", "left"), ("value", "right"), ("over", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for metric in metrics:
        if metric.metric in _HEADLINE:
            table.add_row(metric.protocol, metric.metric, _value(metric), f"{metric.n} {metric.over}")
    return table


def _value(metric: "Metric | None") -> str:
    if metric is None or metric.value is None:
        return "-"
    return f"{metric.value:.4f}" + (f" ± {metric.std:.4f}" if metric.std else "")


def datasets() -> None:
    """The formats, and the data sets that can be fetched."""
    from flows.fetch import PUBLIC
    from gcl.readers import READERS

    table = new_table("Formats (dataset.format)", "format", "what it is", "what it needs")
    for name, reader in READERS.items():
        table.add_row(name, reader.description, reader.requires)
    console().print(table)
    public = new_table("Public data sets (gclflow fetch NAME)", "name", "format", "source")
    for name, dataset in PUBLIC.items():
        public.add_row(name, dataset.format, dataset.source)
    console().print(public)


def methods() -> None:
    """The methods with their settings and what else they rest on, then the settings of the other stages."""
    from typing import get_args

    from flows.config import PipelineConfig
    from gcl.methods.configs import MethodConfig
    from gcl.methods.defaults import DEFAULTS, flat

    for config in get_args(get_args(MethodConfig)[0]):
        name = config.model_fields["name"].default
        inputs = _INPUTS.get(config.inputs, "smoothed rows, the graph")
        reads = f"{inputs}, {'training labels' if config.uses_labels else 'no labels'}"
        title = f"{name}: {(config.__doc__ or '').strip().splitlines()[0]} Reads {reads}."
        known = DEFAULTS[name]
        taken = _assignments(flat(known.sections)) or "the plain defaults"
        console().print(_settings(title, "method", config))
        console().print(f"{name} without a preset or file: {taken}. Source: {known.source}.", markup=False)
    for section in ("metapaths", "smooth", "train", "uncertainty", "cluster", "evaluate", "regression"):
        info = PipelineConfig.model_fields[section]
        console().print(_settings(f"{section}: {info.description}", section, type(info.default)))


_INPUTS = {
    "smoothed": "smoothed rows",
    "graph": "the graph",
    "graph_and_metapaths": "the graph, its metapaths",
    "collection": "a collection of graphs",
}


def _assignments(settings: Mapping[str, Any]) -> str:
    """Settings as after ``--set``."""
    return ", ".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()
    )


def _settings(title: str, section: str, config: type["BaseModel"]) -> Table:
    """The keys of one section; operational ones are marked, since changing them re-runs nothing."""
    from gcl.config import affects_results

    table = new_table(title, "key", "default", "meaning")
    for field, info in config.model_fields.items():
        note = "" if affects_results(config, field) else " (operational)"
        table.add_row(f"{section}.{field}", escape(str(info.default)), escape(f"{info.description}{note}"))
    return table


def presets() -> None:
    """The presets and where their numbers come from."""
    from flows.config import preset_names, read_preset

    table = new_table(
        "Presets (gclflow run --preset NAME)", "name", "what it is", "needs", "source of its numbers"
    )
    for name in preset_names():
        about = read_preset(name)["about"]
        table.add_row(
            name, about.get("description", ""), about.get("needs", "nothing"), about.get("source", "")
        )
    console().print(table)


def fetched(folder: Path) -> None:
    """Where a data set was put."""
    console().print(f"fetched into {folder}", markup=False)


def notice(done: str, *, name: str) -> None:
    """What became of a notice; never its address, which is a secret."""
    console().print(f"notice {name}: {done}", markup=False)


def comparison(found: "Comparison") -> None:
    """Runs side by side."""
    for title, rows in (
        ("Settings that differ", found.config),
        ("Metrics", found.metrics),
        ("Stages", found.stages),
    ):
        table = new_table(title, "", *found.runs)
        for label, cells in rows:
            table.add_row(escape(label), *map(escape, cells))
        console().print(table)


def studies() -> None:
    """The studies, what they ask, and how large they are."""
    from flows.study_config import read_study, study_cells, study_names

    table = new_table(
        "Studies (gclflow study NAME)", "name", "what it answers", "data sets", "cells", "large"
    )
    for name in study_names():
        found = read_study(name)
        cells, every = study_cells(found), study_cells(found, large=True)
        needs_data = any(dataset.paths for dataset in found.datasets)
        names = ", ".join(dataset.name for dataset in found.datasets)
        table.add_row(
            name,
            escape(found.question),
            names + (" (--data)" if needs_data else ", generated"),
            str(len(cells)),
            f"+{len(every) - len(cells)}" if len(every) > len(cells) else "",
        )
    asks = "how easily one added edge fools a classifier of graphs, by how it was trained"
    table.add_row("robustness", asks, "generated", "27", "")
    console().print(table)


def study(record: "StudyRecord", *, out: Path) -> None:
    """The tables of a study, and where they lie."""
    from rich.markdown import Markdown

    from flows.study_tables import study_markdown

    screen = console()
    screen.print(Markdown(study_markdown(record)))
    screen.print(f"study.json, table.md and plots in {out}", markup=False, soft_wrap=True)


def new_table(title: str, *columns: str) -> Table:
    """An empty table, as every command prints them."""
    table = Table(title=escape(title), title_justify="left")
    for column in columns:
        table.add_column(escape(column), overflow="fold")
    return table
