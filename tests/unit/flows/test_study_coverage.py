"""What a study's table says of how much of the study was run, and how to run it again."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.study_config import Study, study_cells
from flows.study_coverage import coverage_lines
from flows.study_record import CellRecord, StudyCall, StudyRecord

KEPT = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "studies"


def make_study() -> Study:
    return Study.model_validate(
        {
            "name": "tiny",
            "title": "Tiny",
            "question": "?",
            "seeds": "0..2",
            "figures": ["*"],
            "reference": "plain",
            "datasets": [{"name": "one", "paths": ["one"]}, {"name": "two"}, {"name": "big", "large": True}],
            "variants": [{"name": "plain"}, {"name": "cold"}],
            "axes": [{"field": "train.epochs", "values": [1, 2], "large": [9]}],
        }
    )


def record_of(call: StudyCall, *, is_kept: bool) -> StudyRecord:
    """A record of all cells of a call, all finished."""
    study = make_study()
    cells = study_cells(study, seeds=call.seeds, only=call.only, large=call.large, settings=call.settings)
    return StudyRecord(
        study=study,
        call=call if is_kept else None,
        seeds=tuple(dict.fromkeys(cell.seed for cell in cells)),
        num_planned=len(cells),
        settings=call.settings,
        versions={},
        machine={},
        cells=[
            CellRecord(
                dataset=cell.dataset, variant=cell.variant, point=dict(cell.point), seed=cell.seed,
                state="finished", preset="none", overrides=(),
            )
            for cell in cells
        ],
    )  # fmt: skip


CALLS = [
    (StudyCall(has_data=True), "24 of 24 cells", "Not run: data sets big; train.epochs 9."),
    (StudyCall(has_data=True, large=True), "54 of 54 cells", None),
    (
        StudyCall(only=("cold/one",), has_data=True),
        "6 of 24 cells",
        "Not run: variants plain; data sets two, big; train.epochs 9.",
    ),
    (
        StudyCall(seeds="0..4", only=("*/two",), settings=("train.epochs=2",)),
        "10 of 40 cells",
        "Not run: data sets one, big; train.epochs 1, 9.",
    ),
    (
        StudyCall(only=("cold/one", "plain/two"), has_data=True),
        "12 of 24 cells",
        "Not run: data sets big; train.epochs 9.",
    ),
    (StudyCall(seeds="0", large=True, has_data=True), "18 of 54 cells", "Not run: seeds 1, 2."),
]


@pytest.mark.parametrize(("call", "count", "left_out"), CALLS)
@pytest.mark.parametrize("is_kept", [True, False])
def test_a_part_of_a_study_does_not_pass_for_the_whole(
    call: StudyCall, count: str, left_out: str | None, is_kept: bool
) -> None:
    text = coverage_lines(record_of(call, is_kept=is_kept))[0]
    assert text.startswith(f"{count} of the study finished")
    assert ("marked large are not counted" in text) != call.large
    assert ("Not run" in text) == (left_out is not None)
    assert left_out is None or left_out in text


@pytest.mark.parametrize(("call", "count", "left_out"), CALLS)
def test_a_command_put_together_from_the_cells_makes_the_same_cells(
    call: StudyCall, count: str, left_out: str | None
) -> None:
    record = record_of(call, is_kept=False)
    *_, told, _, command, _ = coverage_lines(record)
    assert "put together" in told
    words = shlex.split(command)
    assert words[:3] == ["gclflow", "study", "tiny.toml"]
    given: dict[str, list[str]] = {}
    for name, value in zip(words, words[1:], strict=False):
        given.setdefault(name, []).append(value)
    again = study_cells(
        make_study(),
        seeds=given.get("--seeds", [None])[0],  # type: ignore[list-item]
        only=given.get("--only", []),
        large="--large" in words,
        settings=given.get("--set", []),
    )
    assert {cell.label for cell in again} == {
        cell.label for cell in study_cells(make_study(), seeds=call.seeds, only=call.only, large=call.large,
                                           settings=call.settings)
    }  # fmt: skip
    assert ("--data" in words) == call.has_data


def test_a_kept_call_is_told_as_it_was_made() -> None:
    call = StudyCall(seeds="0,2", only=("cold/*",), has_data=True, large=True, settings=("train.epochs = 1",))
    *_, told, _, command, _ = coverage_lines(record_of(call, is_kept=True))
    assert told == "The command:"
    assert command.strip() == (
        "gclflow study tiny.toml --data DIR --seeds 0,2 --only 'cold/*' --set 'train.epochs = 1' --large"
    )


def test_the_options_of_the_command_are_those_there_are() -> None:
    known = CliRunner().invoke(app, ["study", "--help"], env={"COLUMNS": "200"}).output
    call = StudyCall(seeds="0", only=("x",), has_data=True, large=True, settings=("a=1",))
    for option in ("--data", "--seeds", "--only", "--large", "--set"):
        assert option in known
        assert option in call.command("tiny")


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.json")), ids=lambda path: path.stem)
def test_records_from_before_calls_were_kept_still_say_what_they_lack(path: Path) -> None:
    record = StudyRecord.model_validate_json(path.read_text())
    text = "\n".join(coverage_lines(record))
    assert f"gclflow study {path.stem} " in text
    assert text.startswith(f"{sum(cell.state == 'finished' for cell in record.cells)} of ")
    ran = {cell.variant for cell in record.cells}
    lacking = [variant.name for variant in record.study.variants if variant.name not in ran]
    assert not lacking or f"variants {', '.join(lacking)}" in text
