"""How much of a study a record holds, and the command that makes the same cells again."""

from collections.abc import Sequence

from flows.running import parse_seeds
from flows.study_config import AxisValue, Study, study_cells, study_names
from flows.study_record import StudyCall, StudyRecord


def coverage_lines(record: StudyRecord) -> list[str]:
    """The cells that finished out of all that the study has, what was not run, and the command.

    Counted are the seeds of the study and any others that were run. Cells marked large count where one was.
    """
    call = record.call or _call_from_cells(record)
    seeds = sorted({*parse_seeds(record.study.seeds, default=0), *record.seeds})
    total = len(study_cells(record.study, seeds=",".join(map(str, seeds)), large=call.large))
    finished = len(record.cells) - len(record.failed)
    text = f"{finished} of {total} cells of the study finished"
    text += f", {len(record.failed)} failed" if record.failed else ""
    if (num_left := record.num_planned - len(record.cells)) > 0:
        text += f", {num_left} of this call to come"
    if not call.large and _has_large(record.study):
        text += "; those marked large are not counted"
    left_out = _left_out(record, seeds)
    lines = [f"{text}.", *([f"Not run: {'; '.join(left_out)}."] if left_out else [])]
    told = "The command:" if record.call else "The command, put together from the cells that were run:"
    name = record.study.name if record.study.name in study_names() else f"{record.study.name}.toml"
    return [" ".join(lines), "", told, "", "    " + " ".join(call.command(name).split("\n")), ""]


def _left_out(record: StudyRecord, seeds: Sequence[int]) -> list[str]:
    """Of each dimension of the study, what no cell has; also what is marked large."""
    study, cells = record.study, record.cells
    dimensions: list[tuple[str, Sequence[AxisValue], set[AxisValue]]] = [
        ("variants", [v.name for v in study.variants], {c.variant for c in cells}),
        ("data sets", [d.name for d in study.datasets], {c.dataset for c in cells}),
    ]
    for axis in study.axes:
        dimensions.append((axis.field, [*axis.values, *axis.large], {c.point[axis.field] for c in cells}))
    dimensions.append(("seeds", seeds, {c.seed for c in cells}))
    found = ((name, [str(one) for one in every if one not in ran]) for name, every, ran in dimensions)
    return [f"{name} {', '.join(absent)}" for name, absent in found if absent and cells]


def _has_large(study: Study) -> bool:
    return any(d.large for d in study.datasets) or any(axis.large for axis in study.axes)


def _call_from_cells(record: StudyRecord) -> StudyCall:
    """A call that makes the cells of a record from before calls were kept."""
    study = record.study
    ran = {(cell.variant, cell.dataset) for cell in record.cells}
    large_names = {d.name for d in study.datasets if d.large}
    large = any(dataset in large_names for _, dataset in ran) or any(
        cell.point[axis.field] in axis.large for axis in study.axes for cell in record.cells
    )
    names = {dataset for _, dataset in ran}
    return StudyCall(
        seeds=_seeds(record.seeds, study),
        only=_only(study, ran, large=large),
        large=large,
        has_data=any(d.paths for d in study.datasets if d.name in names),
        settings=record.settings,
    )


def _only(study: Study, ran: set[tuple[str, str]], *, large: bool) -> tuple[str, ...]:
    """The patterns that choose these variants on these data sets, as few as there is a plain way to."""
    variants = [v.name for v in study.variants]
    datasets = [d.name for d in study.datasets if large or not d.large]
    some_variants = [name for name in variants if any(variant == name for variant, _ in ran)]
    some_datasets = [name for name in datasets if any(dataset == name for _, dataset in ran)]
    if len(ran) < len(some_variants) * len(some_datasets):
        return tuple(f"{v}/{d}" for d in datasets for v in variants if (v, d) in ran)
    if some_datasets == datasets:
        return () if some_variants == variants else tuple(some_variants)
    if some_variants == variants:
        return tuple(f"*/{name}" for name in some_datasets)
    return tuple(f"{v}/{d}" for d in some_datasets for v in some_variants)


def _seeds(seeds: Sequence[int], study: Study) -> str | None:
    """As ``--seeds`` takes them; None for the study's own."""
    if tuple(seeds) == parse_seeds(study.seeds, default=0):
        return None
    is_range = len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}..{seeds[-1]}" if is_range else ",".join(map(str, seeds))
