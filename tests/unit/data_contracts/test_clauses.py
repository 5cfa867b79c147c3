import numpy as np
import pytest

from data_contracts.clauses import Clause, exactly, fact, in_range, plain_facts
from data_contracts.suites import CLAUSES, FACTS
from data_contracts.tables import TABLES

KNOWN = frozenset({"num_nodes", "is_undirected"})


def test_bound_is_the_first_fact_known() -> None:
    last = fact("num_src_nodes", "num_nodes", plus=-1)
    assert last.known({"num_nodes": 5}) == 4
    assert last.known({"num_nodes": 5, "num_src_nodes": 3}) == 2
    assert last.known({}) is None


def test_clause_does_not_apply_without_its_fact() -> None:
    assert exactly("r", "rows", fact("num_nodes")).bounds({}) is None
    assert exactly("r", "rows", fact("num_nodes")).bounds({"num_nodes": 0}) == (0, 0)


@pytest.mark.parametrize(("facts", "applies"), [({}, False), ({"f": False}, False), ({"f": True}, True)])
def test_clause_applies_only_when_its_condition_holds(facts: dict[str, bool], applies: bool) -> None:
    clause = Clause("r", (), "x", high=0, when=("f", True))
    assert (clause.bounds(facts) is not None) is applies


def test_range_without_a_bound_is_one_sided() -> None:
    assert [clause.figure for clause in in_range("r", "v", 0, None)] == ["v.min"]
    assert [clause.figure for clause in in_range("r", "v", None, 1)] == ["v.max"]


def test_numpy_scalars_are_facts() -> None:
    facts = plain_facts({"num_nodes": np.int64(5), "is_undirected": np.True_}, known=KNOWN)
    assert facts == {"num_nodes": 5, "is_undirected": True}
    assert facts["is_undirected"] is True


@pytest.mark.parametrize("context", [{"num_node": 5}, {"num_nodes": "5"}, {"num_nodes": float("nan")}])
def test_misspelt_or_odd_facts_are_refused(context: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="fact"):
        plain_facts(context, known=KNOWN)


def test_unknown_fact_is_none_and_left_out() -> None:
    assert plain_facts({"num_nodes": None}, known=KNOWN) == {}


def test_every_table_has_clauses_and_facts_are_collected() -> None:
    assert set(CLAUSES) == set(TABLES)
    assert {"num_nodes", "is_undirected", "min_effective_rank", "num_src_nodes"} <= FACTS
