"""S11: no message that data had a part in can move a cursor, colour a terminal or forge a line of a log."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import ContractNotEvaluated, ContractViolation, Failure, TableUnreadable
from flows.config import ConfigurationError, load_config
from flows.exit_codes import describe
from gcl.errors import InvalidGraph, SourceUnreadable
from tasks.errors import ArtifactCorrupted
from tasks.events import emit, resource
from tasks.store import Store
from tests.fuzz import formats
from tests.fuzz.formats import read_source
from tests.sources import Overrides, geom, musae
from tests.tiny_runs import key_of, publish

HOSTILE = [
    b"\x1b[31mred",
    b"\x1b]0;title\x07",
    b"\r\nERROR forged",
    b"\x9b2J",
    b"\xe2\x80\xaereversed",
    b"\x08\x08\x7f",
]
TEXT = "a\x1b[2J\x07b\r\nERROR forged\u202ec\x9b"
SOURCES: list[tuple[Callable[[Path], Overrides], list[str]]] = [
    (formats.csv, ["nodes.csv", "edges.csv", "graph.toml"]),
    (formats.csv_sparse, ["nodes.csv"]),
    (musae, ["edges/tiny_edges.csv", "features/tiny.json", "target/tiny_target.csv"]),
    (geom, ["out1_graph_edges.txt", "out1_node_feature_label.txt"]),
]


@pytest.mark.parametrize(("build", "files"), SOURCES, ids=lambda value: getattr(value, "__name__", ""))
def test_message_about_a_hostile_source_is_one_printable_line(
    build: Callable[[Path], Overrides], files: list[str], tmp_path: Path
) -> None:
    @settings(max_examples=80, deadline=None)
    @given(st.data())
    def inject(data: st.DataObject) -> None:
        overrides = build(tmp_path)
        path = tmp_path / data.draw(st.sampled_from(files))
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from(HOSTILE))
        path.write_bytes(content)
        try:
            read_source(overrides)
        except (SourceUnreadable, InvalidGraph) as error:
            assert describe(error).isprintable()
            assert str(error).isprintable(), "Prefect logs the error itself"

    inject()


@pytest.mark.parametrize(
    "error",
    [
        ContractViolation("graph.nodes", [Failure(TEXT, TEXT, TEXT, TEXT, 1, ({TEXT: TEXT},))]),
        ContractNotEvaluated("graph.nodes", TEXT, TEXT),
        TableUnreadable("graph.nodes", TEXT, TEXT),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_of_contracts_is_one_printable_line(error: Exception) -> None:
    assert str(error).isprintable()
    assert len(str(error)) <= 2000


@pytest.mark.parametrize(
    "error",
    [SourceUnreadable(TEXT), ArtifactCorrupted("smooth/x", TEXT), OSError(2, TEXT), RuntimeError(TEXT)],
    ids=lambda error: type(error).__name__,
)
def test_terminal_gets_printable_lines_for_any_error(error: Exception) -> None:
    assert describe(error).isprintable()


def test_wrong_override_is_told_in_printable_lines() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config(preset="none", overrides=[f"train.epochs={TEXT}"])
    assert all(line.isprintable() for line in describe(caught.value).split("\n"))


def test_log_of_the_store_has_one_line_a_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Names of files that somebody put into a stage folder are the one text there that is not ours."""
    store = Store(tmp_path / "store")
    publish(store, "smooth", key_of("a"), {"smoothed/data.bin": b"data"})
    (store.stage_folder("smooth", key_of("a")) / "smoothed" / TEXT).write_bytes(b"")
    with caplog.at_level(logging.DEBUG):
        assert store.find("smooth", key_of("a")) is None
    assert caplog.records
    assert [r.getMessage() for r in caplog.records if not r.getMessage().isprintable()] == []


def test_events_carry_printable_text(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, object]] = []
    monkeypatch.setattr("prefect.events.emit_event", lambda **event: sent.append(event))
    emit("gclflow.run.finished", resource("dataset", TEXT), {"reason": TEXT, "rows": [{TEXT: TEXT}]})
    (event,) = sent
    assert str(event["resource"]).isprintable()
    assert all(part.isprintable() for part in texts(event["payload"]))


def texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in texts(part)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [str(value)]
