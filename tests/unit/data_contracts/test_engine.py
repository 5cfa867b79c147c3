"""Great Expectations' own failures are told apart from broken data, and it stays offline."""

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from data_contracts import ContractNotEvaluated, engine
from data_contracts.clauses import Clause


def bounded(figure: str, high: float) -> tuple[Clause, None, float]:
    return Clause(f"{figure}_bounded", (figure,), figure, high=high), None, high


def test_clauses_come_back_in_order() -> None:
    held, suite, validation = engine.evaluate(
        "t", {"a": 1, "b": 5, "c.d": 2.5}, [bounded("b", 4), bounded("a", 4), bounded("c.d", 2.5)]
    )
    assert held == [False, True, True]
    assert len(suite["expectations"]) == len(validation["results"]) == 3


def test_missing_figure_is_not_evaluated_rather_than_violated() -> None:
    with pytest.raises(ContractNotEvaluated) as caught:
        engine.evaluate("t", {"a": 1}, [bounded("a", 4), bounded("absent", 4)])
    assert caught.value.rule == "absent_bounded"


def test_figure_of_a_wrong_type_is_not_evaluated() -> None:
    with pytest.raises(ContractNotEvaluated):
        engine.evaluate("t", {"a": "text"}, [bounded("a", 4)])


def test_library_that_raises_is_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("broken install")

    monkeypatch.setattr(engine, "build_suite", fail)
    with pytest.raises(ContractNotEvaluated, match="broken install"):
        engine.evaluate("t", {"a": 1}, [bounded("a", 4)])


def test_lost_clauses_are_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = engine.build_suite
    monkeypatch.setattr(engine, "build_suite", lambda table, settled: whole(table, settled[:1]))
    with pytest.raises(ContractNotEvaluated, match="1 of 2"):
        engine.evaluate("t", {"a": 1}, [bounded("a", 4), bounded("a", 5)])


def test_threads_do_not_see_each_others_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, inside, seen = engine.build_suite, threading.Semaphore(0), []

    def linger(*arguments: Any) -> Any:
        inside.release()
        time.sleep(0.01)
        seen.append(inside.acquire(blocking=False) and not inside.acquire(blocking=False))
        return whole(*arguments)

    monkeypatch.setattr(engine, "build_suite", linger)

    def holds(value: int) -> bool:
        return engine.evaluate("t", {"a": value}, [bounded("a", 0)])[0][0]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(holds, [0, 1] * 10)) == [True, False] * 10
    assert all(seen), "two threads were inside at once"


def test_nothing_asks_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(*address: Any) -> None:
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    engine._batch_definition.cache_clear()
    engine.evaluate("t", {"a": 1}, [bounded("a", 4)])
    assert asked == []
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
