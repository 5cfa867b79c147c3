"""What a stage's body sees, the progress it reports, and the memory that is measured meanwhile."""

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import TABLES, ContractIncompatible, require_contract
from data_contracts.migrations import MIGRATIONS, Migration
from data_contracts.tables import CONTRACT_KEY, VERSION_KEY
from tasks.errors import ArtifactCorrupted
from tasks.progress import Progress, listening, report
from tasks.store import Store
from tasks.work import Work, read_metadata
from tests.tiny_runs import key_of, publish

KEY = key_of("work")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    store = Store(tmp_path / "store")
    given = publish(
        store, "ingest", key_of("graph"), {"graph/metadata.json": b'{"num_nodes": 3}\n', "graph/x": b"x"}
    )
    folder = tmp_path / "out"
    folder.mkdir()
    return Work(
        stage="smooth", key=KEY, store=store, folder=folder, inputs=given.artifacts, facts={"seed": 7}
    )


def test_inputs_are_verified_before_they_are_read(work: Work) -> None:
    assert (work.input("graph") / "x").read_bytes() == b"x"
    assert work.metadata("graph") == {"num_nodes": 3}
    path = work.input("graph") / "x"
    path.chmod(0o600)
    path.write_bytes(b"yy")
    with pytest.raises(ArtifactCorrupted):
        work.input("graph")


def publish_old_table(work: Work, version: str) -> None:
    """Give `work` an input whose one table declares this version of its contract."""
    source = work.folder / "labels.parquet"
    columns = {"node": pa.array([0, 1]), "label": pa.array([1, 0], pa.int32())}
    schema = (
        TABLES["labels.labels"]
        .schema()
        .with_metadata({CONTRACT_KEY: "labels.labels", VERSION_KEY: version, "class_names": '["a", "b"]'})
    )
    pq.write_table(pa.table(list(columns.values()), schema=schema), source)
    files = {"labels/labels.parquet": source.read_bytes(), "labels/metadata.json": b'{"num_classes": 2}\n'}
    work.inputs |= publish(work._store, "ingest", key_of(version), files).artifacts


def test_an_input_of_an_older_version_is_opened_migrated(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_old_table(work, "1.0")
    original = work._store.open(work.inputs["labels"])
    assert work.input("labels") == original, "its version is the current one"

    monkeypatch.setitem(TABLES, "labels.labels", dataclasses.replace(TABLES["labels.labels"], version="2.0"))
    toy = Migration("labels.labels", 1, "as it was", lambda schema: schema, lambda batches, schema: batches)
    monkeypatch.setitem(MIGRATIONS, ("labels.labels", 1), toy)
    work._current.clear()
    opened = work.input("labels")
    assert opened.is_relative_to(work.scratch())
    require_contract(pq.read_schema(opened / "labels.parquet"), "labels.labels")
    assert pq.read_table(opened / "labels.parquet")["label"].to_pylist() == [1, 0]
    assert work.metadata("labels") == {"num_classes": 2}
    assert work.input("labels") == opened
    work._store.verify("ingest", key_of("1.0"), full=True)

    path = original / "labels.parquet"
    path.chmod(0o600)
    path.write_bytes(b"PAR1")
    with pytest.raises(ArtifactCorrupted):
        work.input("labels")


def test_a_migration_of_an_earlier_attempt_serves_again(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_old_table(work, "1.0")
    monkeypatch.setitem(TABLES, "labels.labels", dataclasses.replace(TABLES["labels.labels"], version="2.0"))
    toy = Migration("labels.labels", 1, "as it was", lambda schema: schema, lambda batches, schema: batches)
    monkeypatch.setitem(MIGRATIONS, ("labels.labels", 1), toy)
    opened = work.input("labels")
    link = opened / "metadata.json"
    link.unlink()
    link.symlink_to(opened / "a store that was moved")
    work._current.clear()
    assert work.input("labels") == opened and work.metadata("labels") == {"num_classes": 2}


def test_an_input_of_a_newer_version_is_refused(work: Work) -> None:
    publish_old_table(work, "2.0")
    with pytest.raises(ContractIncompatible, match=r"this code reads labels.labels version 1\.x"):
        work.input("labels")


def test_an_input_that_was_not_declared_cannot_be_opened(work: Work) -> None:
    with pytest.raises(KeyError):
        work.input("labels")


def test_what_is_described_is_data_and_what_is_volatile_is_not(work: Work) -> None:
    work.describe("smoothed", {"b": 1, "a": None})
    assert (work.folder / "smoothed" / "metadata.json").read_bytes() == b'{"a":null,"b":1}\n'
    assert read_metadata(work.output("smoothed")) == {"a": None, "b": 1}
    assert read_metadata(work.output("other")) == {}
    assert work.volatile("timing.json") == work.folder / "volatile" / "timing.json"


def test_digests_of_the_inputs_lie_where_garbage_collection_looks(work: Work) -> None:
    opened = json.loads((work.folder / "volatile" / "inputs.json").read_bytes())
    assert opened == {"graph": work.inputs["graph"].digest}


def test_scratch_belongs_to_the_key(work: Work) -> None:
    assert KEY in work.scratch().name
    assert work.scratch() == work.scratch()


def test_facts_have_defaults(work: Work, tmp_path: Path) -> None:
    assert (work.seed, work.device) == (7, "cpu")
    plain = Work(stage="s", key=KEY, store=Store(tmp_path / "store"), folder=tmp_path, inputs={}, facts={})
    assert (plain.seed, plain.device) == (0, "cpu")


def test_expectations_of_a_table_add_up(work: Work) -> None:
    work.expect("smoothed.features", num_nodes=3)
    work.expect("smoothed.features", num_features=2)
    assert work.expectations == {"smoothed.features": {"num_nodes": 3, "num_features": 2}}


def test_progress_reaches_every_listener_and_only_while_it_listens(work: Work) -> None:
    inner: list[Progress] = []
    outer: list[Progress] = []
    report(Progress("smooth", 0, 1))  # to nobody
    with listening(outer.append):
        with listening(inner.append):
            work.progress(1, 4, "loss 3")
        work.progress(2, 4)
    work.progress(3, 4)
    assert inner == [Progress("smooth", 1, 4, "loss 3")]
    assert [item.done for item in outer] == [1, 2]


def test_listeners_belong_to_their_thread(work: Work) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        thread = threading.Thread(target=work.progress, args=(1, 2))
        thread.start()
        thread.join()
    assert heard == []


_CAME_AND_WENT = """
import json, threading
from tasks.memory import PeakMemory, anonymous_bytes
before = anonymous_bytes()
with PeakMemory() as peak:
    block = bytearray(b"1") * (64 << 20)
    threading.Event().wait(0.3)
    del block
with PeakMemory() as later:
    pass
print(json.dumps([before, peak.num_bytes, later.num_bytes]))
"""


def test_memory_that_came_and_went_is_seen() -> None:
    before, peak, later = _measured_alone(_CAME_AND_WENT)
    assert peak >= before + (48 << 20)
    assert later < peak - (32 << 20), "a peak is of its stage, not of the process"


_OF_A_CHILD = """
import json, subprocess, sys
from tasks.memory import anonymous_bytes
code = "x = bytearray(b'1') * (64 << 20); print(flush=True); input()"
child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
before = anonymous_bytes()
child.stdout.readline()
during = anonymous_bytes()
child.communicate(b"\\n")
print(json.dumps([before, during]))
"""


def test_memory_of_child_processes_counts() -> None:
    before, during = _measured_alone(_OF_A_CHILD)
    assert during >= before + (32 << 20)


def _measured_alone(code: str) -> list[int]:
    # a process of its own: what earlier tests left here is given back at moments nobody chose
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(number) for number in json.loads(done.stdout)]
