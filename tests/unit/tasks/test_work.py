"""What a stage's body sees, the progress it reports, and the memory that is measured meanwhile."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

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
