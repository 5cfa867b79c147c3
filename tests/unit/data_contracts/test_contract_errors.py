import json
import pickle

import pytest

from data_contracts import (
    ContractIncompatible,
    ContractNotEvaluated,
    ContractViolation,
    Failure,
    TableUnreadable,
)
from data_contracts.validate import ContractResult

FAILURE = Failure("x", "features_finite", "x.non_finite = 2", "at most 0", 2, ({"row": 3, "x[1]": "nan"},))
RESULT = ContractResult("graph.features", "1.0", 5, 1, ("features_finite",), 0.1, (FAILURE,))
ERRORS = [
    ContractViolation("graph.features", [FAILURE], RESULT),
    ContractNotEvaluated("graph.features", "features_finite", "boom"),
    TableUnreadable("graph.features", "/a/b.parquet", "no footer"),
    ContractIncompatible("graph.features", "graph.nodes version 1.0", "graph.features version 1.x"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_survives_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.as_dict() == error.as_dict()
    assert vars(again).keys() == vars(error).keys()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_is_json(error: Exception) -> None:
    assert json.loads(json.dumps(error.as_dict(), allow_nan=False))["error"] == type(error).__name__


def test_message_is_one_line_without_control_characters() -> None:
    hostile = Failure("x", "rule", "a\nb\x1b[31m", "c\u2028d", 1, ({"row": 0, "id": "\r\n"},))
    text = str(ContractViolation("t", [hostile]))
    assert text.isprintable()
    assert "\\n" in text


def test_message_is_cut_to_a_readable_length() -> None:
    assert len(str(TableUnreadable("t", "p", "x" * 100_000))) <= 2000


def test_message_names_rule_column_and_first_row() -> None:
    text = str(ContractViolation("graph.features", [FAILURE]))
    for part in ("graph.features", "features_finite", "at most 0", "2 row(s)", "'row': 3"):
        assert part in text
