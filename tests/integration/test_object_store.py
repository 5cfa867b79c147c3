"""The pipeline on a store in a bucket (moto on loopback): two caches, crashes, damage, outages, secrets."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.config import STAGE_NAMES
from tasks.artifact import Manifest
from tasks.maintenance import collect_garbage, verify_store
from tasks.remote import Publication, RemoteUnreachable
from tasks.remote_store import RemoteStore
from tasks.runs import Runs
from tasks.store import Store
from tests.moto_bucket import BUCKET, MotoServer, moto_server
from tests.tiny_runs import describe_folder, key_of, publish, run_direct, tiny

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
ADDRESS = f"s3://{BUCKET}/project"
CANARY = "canary4d8b7c"


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with moto_server() as started:
        yield started


@pytest.fixture
def moto(server: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MotoServer:
    """An empty bucket, and this process as a machine that uses it."""
    server.reset()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GCLFLOW_STORE_CACHE", str(tmp_path / "cache"))
    return server


def on(machine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Go on as another machine: with another cache. Returns the store's address."""
    monkeypatch.setenv("GCLFLOW_STORE_CACHE", str(tmp_path / machine))
    return ADDRESS


def attempts(moto: MotoServer, stage: str, key: str) -> set[str]:
    return {name.split("/")[4] for name in moto.names(f"project/data/{stage}/{key}/")}


def published(moto: MotoServer, stage: str, key: str) -> Publication:
    return Publication.load(moto.read(f"project/manifests/{stage}/{key}.json"), stage, key)


class Machine:
    """The program in a process of its own, with credentials that must show up nowhere."""

    def __init__(self, folder: Path, server: MotoServer) -> None:
        self.folder = folder
        without_server = {name: text for name, text in os.environ.items() if name != "PREFECT_API_URL"}
        self.environment = {
            **without_server,
            **server.environment(),
            "AWS_ACCESS_KEY_ID": f"id-{CANARY}",
            "AWS_SECRET_ACCESS_KEY": f"secret-{CANARY}",
            "AWS_SESSION_TOKEN": f"token-{CANARY}",
            "GCLFLOW_STORE_CACHE": str(folder / "cache"),
            "GCLFLOW_HOME": str(folder / "home"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "300",
        }

    def __call__(self, *arguments: str, store: str = ADDRESS) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-c", "from flows.cli import main; main()", *arguments, "--store", store],
            capture_output=True, text=True, timeout=280, check=False, cwd=REPOSITORY, env=self.environment,
        )  # fmt: skip
        assert CANARY not in done.stdout + done.stderr
        return done

    def run(self, *options: str) -> dict[str, dict[str, object]]:
        """`gclflow run` on the embedded data set; the stages by name, as in run.json."""
        done = self(
            "run", "--preset=digits", "--set=train.epochs=2", f"--out={self.folder / 'out'}", *options
        )
        assert done.returncode == 0, done.stderr[-2000:]
        record = json.loads((self.folder / "out" / "run.json").read_bytes())
        return {stage["stage"]: stage for stage in record["stages"]}


def states(run: dict[str, dict[str, object]]) -> dict[str, object]:
    return {name: stage["state"] for name, stage in run.items()}


@pytest.mark.timeout(600)
def test_the_whole_pipeline_on_a_bucket_from_three_machines(
    server: MotoServer, tmp_path: Path, prefect_api: str
) -> None:
    server.reset()
    first, second, third = (Machine(tmp_path / name, server) for name in ("first", "second", "third"))
    for later in (second, third):  # the first starts a server of its own
        later.environment["PREFECT_API_URL"] = prefect_api
    computed = first.run("--debug")
    stages = [name for name in STAGE_NAMES if name in computed]
    assert {"ingest", "train", "report"} <= set(stages)
    assert states(computed) == dict.fromkeys(stages, "ran")
    cached = second.run()
    assert states(cached) == dict.fromkeys(stages, "cached")
    assert [stage["artifacts"] for stage in cached.values()] == [s["artifacts"] for s in computed.values()]

    key = str(computed["train"]["key"])
    (damaged,) = [
        n for n in server.names("project/data/train/") if n.endswith("/embeddings/embeddings.parquet")
    ]
    content = bytearray(server.read(damaged))
    content[len(content) // 2] ^= 1
    server.client.put_object(Bucket=BUCKET, Key=damaged, Body=bytes(content))
    again = third.run()
    assert states(again) == dict.fromkeys(stages, "cached") | {"train": "ran"}
    assert again["train"]["reason"] == "its artifact was damaged; that is in the quarantine now"
    assert again["train"]["artifacts"] == computed["train"]["artifacts"], "the same bytes again"
    assert len(server.names("project/quarantine/")) == 1
    assert len(attempts(server, "train", key)) == 2, "the damaged files are kept for inspection"

    listed = Machine(tmp_path / "fourth", server)("store", "ls")
    assert listed.returncode == 0
    assert all(f" {stage} " in listed.stdout for stage in stages)
    shown = second("store", "show", str(cached["cluster"]["artifacts"]["clusters"])[:12])  # type: ignore[index]
    assert f"train {key[:12]}" in shown.stdout
    assert "intact" in second("store", "verify").stdout
    assert "removed 0 in all" in second("store", "gc").stdout

    for name in server.names():
        assert CANARY.encode() not in server.read(name), name
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "prefect.db" or path.suffix == ".db" for path in written), (
        "the server's is among them"
    )
    assert [path for path in written if CANARY.encode() in path.read_bytes()] == []


def test_a_bucket_that_is_not_there_and_a_service_that_is_down_are_told_in_one_line(
    server: MotoServer, tmp_path: Path
) -> None:
    server.reset()
    machine = Machine(tmp_path, server)
    run = ("run", "--preset=digits", f"--out={tmp_path / 'out'}")
    absent, refused = machine(*run, store="s3://absent/x"), machine(*run, store=f"s3://id:{CANARY}@results/x")
    machine.environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    down = machine(*run)
    assert [done.returncode for done in (absent, refused, down)] == [2, 2, 5]
    assert [len(done.stderr.splitlines()) for done in (absent, refused, down)] == [1, 1, 1]
    assert "there is no bucket absent; make it first" in absent.stderr
    assert "not of the form s3://BUCKET/PREFIX" in refused.stderr
    assert "cannot be reached" in down.stderr and "the same command goes on" in down.stderr


KILLED_BEFORE_PUBLICATION = """
import os, signal, sys
from tasks.remote_s3 import S3Remote
from tests.tiny_runs import run_direct, tiny

def kill(remote, name, data):
    os.kill(os.getpid(), signal.SIGKILL)

run_direct(tiny(), sys.argv[1], until="ingest")
S3Remote.put_if_absent = kill
run_direct(tiny(), sys.argv[1], until="smooth")
"""


@pytest.mark.fault
def test_a_kill_between_data_and_manifest_leaves_nothing_visible_and_the_next_run_is_right(
    moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_direct(tiny(), tmp_path / "local", until="smooth").digests
    done = subprocess.run(
        [sys.executable, "-c", KILLED_BEFORE_PUBLICATION, ADDRESS],
        cwd=REPOSITORY, capture_output=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert moto.names("project/data/smooth/"), "the data were there"
    store = Store(on("other", monkeypatch, tmp_path))
    assert {stage for stage, _ in store.folders()} == {"ingest"}
    elsewhere = run_direct(tiny(), ADDRESS, until="smooth")
    assert elsewhere.ran == ["smooth"], "another machine computes it"
    assert elsewhere.digests == expected
    again = run_direct(tiny(), on("cache", monkeypatch, tmp_path), until="smooth")
    assert again.ran == [], "the machine itself had finished it"
    assert again.digests == expected
    assert len(attempts(moto, "smooth", again.keys["smooth"])) == 2

    monkeypatch.setattr("tasks.remote_maintenance.UPLOAD_SECONDS", -60.0)
    collected = collect_garbage(Store(ADDRESS), keep_days=7)
    assert [(kind.kind, kind.num_paths) for kind in collected.kinds] == [
        ("uploads that are not published", 1)
    ]
    kept = published(moto, "smooth", again.keys["smooth"]).attempt
    assert attempts(moto, "smooth", again.keys["smooth"]) == {kept}
    assert verify_store(Store(ADDRESS)) == []


@pytest.mark.fault
def test_a_service_that_fails_in_the_middle_is_told_and_the_same_run_goes_on(
    moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.remote_s3.MAX_TRIES", 2)
    moto.fault = lambda method, path: "slow" if method == "PUT" and "/data/train/" in path else None
    with pytest.raises(RemoteUnreachable, match="SlowDown") as caught:
        run_direct(tiny(), ADDRESS, until="cluster")
    assert "the same command goes on" in str(caught.value)
    assert {stage for stage, _ in Store(ADDRESS).folders()} == {"ingest", "smooth"}
    moto.fault = lambda method, path: None
    again = run_direct(tiny(), ADDRESS, until="cluster")
    assert again.ran == ["uncertainty", "cluster"], "what had been computed is uploaded, not computed again"
    other = run_direct(tiny(), on("other", monkeypatch, tmp_path), until="cluster")
    assert other.ran == []
    assert other.digests == again.digests


@pytest.mark.fault
@pytest.mark.parametrize("same_bytes", [True, False])
def test_two_machines_that_publish_at_once_end_with_one_manifest_and_no_orphan(
    moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_bytes: bool
) -> None:
    stores = [Store(on(name, monkeypatch, tmp_path)) for name in ("a", "b")]
    for turn in range(8):
        key, told, barrier = key_of(f"{turn}"), [], threading.Barrier(2)

        def race(number: int) -> None:
            store = stores[number]
            with store.writing("ingest", key) as folder:  # noqa: B023  joined below
                (folder / "graph").mkdir()
                content = b"same" if same_bytes else b"%d" % number
                (folder / "graph" / "x").write_bytes(content)
                manifest = describe_folder(folder, "ingest", key)  # noqa: B023
                barrier.wait()  # noqa: B023
                told.append(store.publish(folder, manifest))  # noqa: B023

        threads = [threading.Thread(target=race, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners: set[str] = {manifest.artifacts["graph"].digest for manifest in told}
        assert len(told) == 2 and len(winners) == 1
        assert attempts(moto, "ingest", key) == {published(moto, "ingest", key).attempt}
        assert all(store.open(told[0].artifacts["graph"]) for store in stores)


def test_a_forced_run_with_other_bytes_reaches_the_other_machine(
    moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of("x")
    publish(Store(on("a", monkeypatch, tmp_path)), "ingest", key, {"graph/x": b"old"})
    assert Store(on("b", monkeypatch, tmp_path)).find("ingest", key)
    new: Manifest = publish(
        Store(on("a", monkeypatch, tmp_path)), "ingest", key, {"graph/x": b"new"}, replace=True
    )
    store = Store(on("b", monkeypatch, tmp_path))
    assert store.find("ingest", key) == new
    assert (store.open(new.artifacts["graph"]) / "x").read_bytes() == b"new"


@pytest.mark.usefixtures("prefect_api")
def test_series_scores_studies_and_maintenance_work_as_on_a_disk(
    moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step from a machine of its own, which knows nothing but the bucket."""
    from flows.maintenance import maintenance
    from flows.running import run_pipeline
    from flows.score_running import run_score
    from flows.stages import stage
    from flows.study_running import run_study
    from tests.growing import NUM_NEW, growing, write_source
    from tests.tiny_runs import TINY

    source = write_source(tmp_path / "old")
    store, options = on("nightly", monkeypatch, tmp_path), {"seeds": [0], "out": tmp_path / "out"}
    run_pipeline(growing(source), store=store, series="nightly", **options)  # type: ignore[arg-type]

    scored = run_score(
        model="nightly", path=write_source(tmp_path / "new", num_new=NUM_NEW), nodes="new",
        settings=["max_shift=none"], store=on("score", monkeypatch, tmp_path), out=tmp_path / "scores",
    )  # fmt: skip
    assert scored.num_scored == NUM_NEW

    again = stage("evaluate", "nightly", on("again", monkeypatch, tmp_path))
    why = {s["stage"]: s["reason"] for s in again.stages if s["state"] == "ran"}
    assert why == {"evaluate": "refresh was asked for"}
    assert len(Runs(Store(on("register", monkeypatch, tmp_path))).entries("nightly")) == 2

    study = tmp_path / "study.toml"
    study.write_text(
        'title = "Tiny"\nquestion = "?"\nreference = "warm"\nseeds = "0"\nfigures = ["history/loss"]\n'
        f'[[datasets]]\nname = "made"\nsettings = {json.dumps(list(TINY))}\n'
        '[[variants]]\nname = "warm"\n[[variants]]\nname = "cold"\nsettings = ["method.temperature=0.1"]\n'
    )
    cells = run_study(str(study), store=on("study", monkeypatch, tmp_path), out=tmp_path / "s").cells
    assert [cell.state for cell in cells] == ["finished"] * 2
    cells = run_study(str(study), store=on("elsewhere", monkeypatch, tmp_path), out=tmp_path / "e").cells
    num_cached = {cell.num_cached for cell in cells}
    assert num_cached == {6}, (
        "all that a study computes on one machine, up to evaluate, is cached on the next"
    )

    record = maintenance(on("keeper", monkeypatch, tmp_path), keep_days=0)
    assert record.damaged == ()
    assert record.num_checked == len(list(Store(ADDRESS).folders())) > 7
    assert isinstance(Store(ADDRESS), RemoteStore)
