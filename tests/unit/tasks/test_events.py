"""Events: bounded, on one line, about a resource with a plain id; sending them never fails a run."""

import json
from typing import Any

import pytest

from data_contracts.errors import ContractViolation, Failure
from gcl.errors import InvalidGraph
from tasks import events

Sent = list[dict[str, Any]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What would have been sent."""
    found: Sent = []

    def record(**event: Any) -> None:
        found.append(event)

    monkeypatch.setattr("prefect.events.emit_event", record)
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nightly", "gclflow.series.nightly"),
        ("cora*", "gclflow.series.cora_"),
        ("a b/../\n\x00c", "gclflow.series.a_b_..___c"),
        ("", "gclflow.series._"),
        ("x" * 5000, "gclflow.series." + "x" * 100),
        ("\u202ename", "gclflow.series._name"),
    ],
)
def test_a_resource_has_a_plain_id(name: str, expected: str) -> None:
    about = events.resource("series", name)
    assert about["prefect.resource.id"] == expected
    assert about["prefect.resource.name"].isprintable()
    assert len(about["prefect.resource.name"]) <= 100


def test_payloads_are_bounded_in_length_number_depth_and_characters(sent: Sent) -> None:
    nested: Any = "deep"
    for _ in range(50):
        nested = {"in": nested}
    hostile = {
        "text": "a\x1b[31m\nb\u202e" + "x" * 100_000,
        "many": list(range(10_000)),
        "wide": {f"{index}\n": index for index in range(10_000)},
        "deep": nested,
        "odd": {1: object(), "nan": float("nan"), "bytes": b"\0"},
        "plain": [1, 2.5, None, True],
    }
    events.emit("gclflow.run.finished", events.resource("series", "n"), hostile)
    payload = sent[0]["payload"]
    text = json.dumps(payload, allow_nan=False)
    assert len(text) < 50_000
    assert payload["plain"] == [1, 2.5, None, True]
    assert len(payload["text"]) == 500
    assert payload["text"].isprintable()
    assert len(payload["many"]) == len(payload["wide"]) == 50
    assert payload["odd"]["nan"] == "nan"


def test_telling_never_fails_a_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fails(**event: Any) -> None:
        raise OSError("no server")

    monkeypatch.setattr("prefect.events.emit_event", fails)
    events.emit("gclflow.run.finished", events.resource("series", "n"), {"a": 1})
    assert "gclflow.run.finished" in caplog.text


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_what_cannot_be_told_does_not_fail_a_run_either(sent: Sent) -> None:
    events.emit("gclflow.run.finished", events.resource("series", "n"), {"a": Unprintable()})
    assert sent == []


@pytest.mark.parametrize(
    "error",
    [
        ContractViolation(
            "graph.edges",
            [Failure("src", "endpoints_in_range", "9", "at most 3", 1, ({"src": 9, "dst": 0},))],
        ),
        InvalidGraph(
            table="graph.edges", column="src", rule="endpoints_in_range", num_rows=1, sample=["(9, 0)"]
        ),
    ],
    ids=["contract", "source"],
)
def test_a_violation_names_table_rule_and_first_rows(
    sent: Sent, error: ContractViolation | InvalidGraph
) -> None:
    events.contract_violated("ingest", error)
    (event,) = sent
    assert event["event"] == "gclflow.contract.violated"
    assert event["resource"]["prefect.resource.id"] == "gclflow.table.graph.edges"
    payload = event["payload"]
    assert (payload["stage"], payload["table"]) == ("ingest", "graph.edges")
    (rule,) = payload["rules"]
    assert (rule["rule"], rule["column"], rule["num_rows"]) == ("endpoints_in_range", "src", 1)
    assert "9" in str(rule["sample"])
    assert payload["reason"] == str(error)
