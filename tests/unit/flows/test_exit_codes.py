"""Exit codes, and what the user is told."""

import json
from pathlib import Path

import pytest

from data_contracts.errors import ContractNotEvaluated, ContractViolation, Failure
from flows.config import ConfigurationError
from flows.exit_codes import Interrupted, describe, exit_code, write_failure
from flows.server import ServerNotStarted
from gcl.errors import InvalidGraph, NonFiniteLoss, SourceUnreadable, TrainingInterrupted, UnsafeSource
from tasks.errors import ArtifactCorrupted, StoreFull, StoreUnusable, UnknownArtifact
from tasks.regression import Comparison, ComparisonRow, RunRegressed

FAILURE = Failure("x", "finite", "nan = 2", "none", 2, ({"node": 3, "x": float("nan")},))
GRAPH = InvalidGraph(table="graph.edges", column="src", rule="in_range", num_rows=1, sample=["(0, 9)"])
FELL = ComparisonRow(
    name="accuracy (p)", before=0.9, now=0.5, bound=0.02, passed=False, reason="fell from 0.9000 to 0.5000"
)
REGRESSED = RunRegressed(Comparison(series="nightly", run="now", against="then", rows=(FELL,)), ".store")
CODES = [
    (ConfigurationError("train.epochs: wrong"), 2),
    (StoreUnusable("store"), 2),
    (UnknownArtifact("none"), 2),
    (ContractViolation("graph.edges", [FAILURE]), 3),
    (GRAPH, 3),
    (SourceUnreadable("file"), 4),
    (UnsafeSource("pickle"), 4),
    (ContractNotEvaluated("graph.edges", "finite", "boom"), 5),
    (ServerNotStarted("no"), 5),
    (REGRESSED, 6),
    (ArtifactCorrupted("a/b/c", "gone"), 5),
    (StoreFull("store", 10, 1), 5),
    (NonFiniteLoss(3, "loss"), 5),
    (TrainingInterrupted("stopped"), 5),
    (ValueError("anything"), 5),
    (KeyboardInterrupt("signal SIGTERM"), 130),
    (Interrupted(""), 130),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_an_error_has_its_exit_code_and_is_told_in_plain_words(error: BaseException, code: int) -> None:
    assert exit_code(error) == code
    text = describe(error)
    assert text
    assert "Traceback" not in text
    assert "\n" not in text


def test_wrong_configuration_may_take_a_line_a_field() -> None:
    assert describe(ConfigurationError("a: x\nb: y")) == "configuration: a: x\nb: y"


@pytest.mark.parametrize(
    ("error", "told"), [(KeyError("labels"), "KeyError: 'labels'"), (MemoryError(), "MemoryError")]
)
def test_of_foreign_errors_the_kind_is_told_too(error: Exception, told: str) -> None:
    assert describe(error) == told


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = describe(SourceUnreadable("a\x1b[31mred\x00\r\u202eabc\nnext"))
    assert text.isprintable()
    assert "\\x1b[31mred\\x00" in text


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_a_failure_is_left_for_programs(error: BaseException, code: int, tmp_path: Path) -> None:
    write_failure(error, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "failure.json").read_text())
    assert document["exit_code"] == code
    assert document["message"] == describe(error)
    if isinstance(error, ContractViolation):
        assert document["table"] == "graph.edges"
        assert document["failures"][0]["sample"][0]["node"] == 3


def test_a_broken_rule_comes_with_what_can_be_done_about_it() -> None:
    collapsed = Failure("z", "not_collapsed", "1.0", "1.05", None, ())
    assert "smooth.standardise=true" in describe(ContractViolation("embeddings.embeddings", [collapsed]))
    assert "smooth.standardise" not in describe(ContractViolation("graph.edges", [FAILURE]))


def test_a_regressed_run_is_left_for_programs_number_by_number(tmp_path: Path) -> None:
    write_failure(REGRESSED, tmp_path)
    (row,) = json.loads((tmp_path / "failure.json").read_text())["comparison"]["rows"]
    assert (row["before"], row["now"], row["bound"], row["passed"]) == (0.9, 0.5, 0.02, False)
    assert "gclflow store accept now --store .store" in describe(REGRESSED)
