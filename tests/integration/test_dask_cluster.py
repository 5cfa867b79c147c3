"""Smoothing on a Dask cluster that somebody else has started: scheduler and workers, a process each."""

import functools
import json
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dask
import distributed  # noqa: F401  its defaults, which settings changed before it is imported would take with them
import psutil
import pytest

import tasks.dask_pool
from flows.exit_codes import describe, exit_code
from tasks.dask_pool import ALLOWED_WORKER_DEATHS, ClusterNotStarted, NoWorkers, SchedulerLost, dask_map
from tests.faults.injection import REPOSITORY
from tests.moto_bucket import BUCKET, moto_server
from tests.tiny_runs import run_direct, tiny

pytestmark = [pytest.mark.fault, pytest.mark.slow]
NUM_BLOCKS = 24
# Blocks of a fifth of a second or so, one a column.
DATA = ("dataset.nodes=3000", f"dataset.features={NUM_BLOCKS}", "smooth.num_steps=1000")
ANSWER_SECONDS = 6.0


class Cluster:
    """A scheduler and workers, each a process of its own; gone when the context ends.

    Args:
        folder: for their files.
        num_workers: how many workers.
        options: more options of all of them, such as certificates.
    """

    def __init__(self, folder: Path, *, num_workers: int = 2, options: Sequence[str] = ()) -> None:
        self.folder, self.options = folder, [*options, "--no-dashboard"]
        self.processes: list[subprocess.Popen[bytes]] = []
        file = folder / "scheduler.json"
        self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        deadline = time.monotonic() + 60
        while not file.exists() or not file.read_text().strip():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.address = str(json.loads(file.read_text())["address"])
        for _ in range(num_workers):
            here = ("--local-directory", str(folder), "--nthreads", "1", "--no-nanny")
            self.start("worker", self.address, *here)

    def start(self, *command: str) -> None:
        with (self.folder / "cluster.log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *command, *self.options],
                    stdout=log,
                    stderr=log,
                    env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
                )  # fmt: skip
            )

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    @property
    def scheduler(self) -> "subprocess.Popen[bytes]":
        return self.processes[0]

    @property
    def workers(self) -> "list[subprocess.Popen[bytes]]":
        return self.processes[1:]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline's own Dask with limits of seconds, and a quick look at them."""
    limits = {"connect_seconds": 3.0, "answer_seconds": ANSWER_SECONDS, "worker_seconds": 5.0}
    monkeypatch.setattr(tasks.dask_pool, "dask_map", functools.partial(dask_map, **limits))
    monkeypatch.setattr(tasks.dask_pool, "_ASK_SECONDS", 1.0)
    monkeypatch.setattr(tasks.dask_pool, "_END_SECONDS", 3.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    with Cluster(tmp_path / "cluster") as found:
        yield found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of a run without Dask."""
    return run_direct(tiny(*DATA), tmp_path_factory.mktemp("local") / "store", until="smooth").digests


def on(cluster: Cluster, *settings: str) -> Any:
    """The same run on the cluster."""
    address = f"smooth.dask_address={cluster.address}"
    return tiny(*DATA, "smooth.backend=dask", "smooth.block_columns=1", address, *settings)


def blocks_done(store: Path) -> int:
    return len(list(store.glob(".scratch/smooth-*/blocks-*/out_*.npy")))


def midway(store: Path, action: Callable[[], object]) -> threading.Thread:
    """Call `action` once, when some of the blocks are done."""

    def watch() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and blocks_done(store) < 3:
            time.sleep(0.005)
        action()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_worker_killed_midway_changes_no_byte(
    cluster: Cluster, local: dict[str, str], tmp_path: Path
) -> None:
    store, left = tmp_path / "store", []

    def kill_one() -> None:
        left.append(NUM_BLOCKS - blocks_done(store))
        cluster.workers[0].kill()

    thread = midway(store, kill_one)
    run = run_direct(on(cluster), store, until="smooth")
    thread.join()
    assert left[0] > 3, "killed when nearly all was done"
    assert run.digests == local
    assert cluster.workers[1].poll() is None, "the cluster is left running"
    assert cluster.scheduler.poll() is None


def test_with_a_store_in_a_bucket_workers_need_its_cache_alone(
    cluster: Cluster, local: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto_server() as moto:
        moto.reset()
        for name, value in moto.environment().items():  # of this process: the workers were started before
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("GCLFLOW_STORE_CACHE", str(tmp_path / "shared"))
        address = f"s3://{BUCKET}/project"
        assert run_direct(on(cluster), address, until="smooth").digests == local
        assert any(name.startswith("project/manifests/smooth/") for name in moto.names())
        monkeypatch.setenv("GCLFLOW_STORE_CACHE", str(tmp_path / "another-machine"))
        again = run_direct(on(cluster), address, until="smooth")
    assert (again.ran, again.digests) == ([], local)


def test_a_scheduler_killed_midway_ends_the_stage_in_one_line(
    cluster: Cluster, local: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    thread = midway(store, cluster.scheduler.kill)
    with pytest.raises(SchedulerLost, match=cluster.address) as caught:
        run_direct(on(cluster), store, until="smooth")
    thread.join()
    assert blocks_done(store) < NUM_BLOCKS
    assert (exit_code(caught.value), describe(caught.value).count("\n")) == (5, 0)
    assert "Traceback" not in capfd.readouterr().err
    assert not list(store.glob("smooth/*")), "nothing is published"
    assert run_direct(tiny(*DATA), store, until="smooth").digests == local


def test_a_scheduler_that_falls_silent_midway_is_not_waited_for_without_end(
    cluster: Cluster, tmp_path: Path
) -> None:
    store, stopped = tmp_path / "store", []

    def stop() -> None:
        cluster.scheduler.send_signal(signal.SIGSTOP)
        stopped.append(time.monotonic())

    thread = midway(store, stop)
    with pytest.raises(SchedulerLost, match=cluster.address):
        run_direct(on(cluster), store, until="smooth")
    assert time.monotonic() - stopped[0] < 4 * ANSWER_SECONDS
    thread.join()


def test_a_scheduler_that_falls_silent_before_any_block_is_done(cluster: Cluster) -> None:
    started = time.monotonic()
    thread = threading.Timer(3, cluster.scheduler.send_signal, (signal.SIGSTOP,))
    thread.start()
    with pytest.raises(SchedulerLost, match=cluster.address):
        with tasks.dask_pool.dask_map(address=cluster.address) as map_blocks:
            map_blocks(time.sleep, [600, 600])
    assert time.monotonic() - started < 3 + 4 * ANSWER_SECONDS
    thread.join()


def test_a_scheduler_that_accepts_and_says_nothing_is_not_waited_for_without_end(cluster: Cluster) -> None:
    cluster.scheduler.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(SchedulerLost, match=cluster.address):
        with tasks.dask_pool.dask_map(address=cluster.address):
            pytest.fail("connected to nobody")
    assert time.monotonic() - started < 4 * ANSWER_SECONDS


def test_a_scheduler_without_workers_is_not_waited_for_without_end(cluster: Cluster, tmp_path: Path) -> None:
    """Neither where there never were any, nor where all are killed with blocks in their hands."""
    store = tmp_path / "store"
    thread = midway(store, lambda: [worker.kill() for worker in cluster.workers])
    with pytest.raises(NoWorkers, match=f"{cluster.address} has had no workers .*dask worker") as caught:
        run_direct(on(cluster), store, until="smooth")
    thread.join()
    assert (exit_code(caught.value), describe(caught.value).count("\n")) == (5, 0)
    with pytest.raises(NoWorkers):
        with tasks.dask_pool.dask_map(address=cluster.address) as map_blocks:
            map_blocks(operator.neg, [1])


def test_a_worker_that_comes_late_is_waited_for(cluster: Cluster) -> None:
    for worker in cluster.workers:
        worker.kill()
        worker.wait()
    thread = threading.Timer(2, cluster.start, ("worker", cluster.address, "--nthreads", "1", "--no-nanny"))
    thread.start()
    with dask_map(address=cluster.address, worker_seconds=60) as map_blocks:
        assert map_blocks(operator.neg, [1, 2]) == [-1, -2]
    thread.join()


def certificates(folder: Path) -> dict[str, str]:
    """An authority, a certificate and its key, in files; what the Dask configuration calls them."""
    from distributed.security import Security

    made = Security.temporary()  # type: ignore[no-untyped-call]
    texts = {
        "ca-file": made.tls_ca_file,
        "client.cert": made.tls_client_cert,
        "client.key": made.tls_client_key,
    }
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(str(text))
    return {f"distributed.comm.tls.{name}": str(folder / name) for name in texts}


def test_certificates_of_the_dask_configuration_open_a_scheduler_and_others_do_not(
    local: dict[str, str], tmp_path: Path
) -> None:
    ours, others = certificates(tmp_path / "ours"), certificates(tmp_path / "others")
    authority, certificate, key = ours.values()
    options = ("--tls-ca-file", authority, "--tls-cert", certificate, "--tls-key", key, "--protocol", "tls")
    (tmp_path / "cluster").mkdir()
    with Cluster(tmp_path / "cluster", num_workers=1, options=options) as cluster:
        assert cluster.address.startswith("tls://")
        with dask.config.set(ours):
            run = run_direct(on(cluster, "smooth.num_steps=10"), tmp_path / "store", until="smooth")
        assert run.digests["graph"] == local["graph"]
        missing = {name: str(tmp_path / "nowhere") for name in ours}
        for settings in ({}, others, missing):
            with (
                dask.config.set(settings),
                pytest.raises(SchedulerLost, match="certificates of one authority"),
            ):
                with tasks.dask_pool.dask_map(address=cluster.address):
                    pytest.fail("let in")


def test_a_cluster_of_this_machine_that_does_not_start_says_so_and_leaves_nothing() -> None:
    before = set(multiprocessing.active_children())
    started = time.monotonic()
    with dask.config.set({"distributed.worker.preload": ["import time; time.sleep(1000)"]}):
        with pytest.raises(
            ClusterNotStarted, match=r"2 workers .* not within 3 s; .*smooth\.num_workers"
        ) as caught:
            with dask_map(num_workers=2, start_seconds=3):
                pytest.fail("started")
    assert time.monotonic() - started < 30
    assert (exit_code(caught.value), describe(caught.value).count("\n")) == (5, 0)
    left = [psutil.Process(child.pid) for child in set(multiprocessing.active_children()) - before]
    assert psutil.wait_procs(left, timeout=10)[1] == []
    with dask_map(num_workers=1) as map_blocks:
        assert map_blocks(operator.neg, [1]) == [-1], "the next one starts"


@pytest.mark.parametrize("deaths", [1, ALLOWED_WORKER_DEATHS + 1])
def test_a_worker_killed_while_it_starts_is_started_again_some_times(deaths: int) -> None:
    before, killed, over = set(multiprocessing.active_children()), set(), threading.Event()

    def kill() -> None:
        while len(killed) < deaths and not over.wait(0.01):
            for child in set(multiprocessing.active_children()) - before - killed:
                child.kill()
                killed.add(child)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        if deaths == 1:
            with dask_map(num_workers=1) as map_blocks:
                assert map_blocks(operator.neg, [1]) == [-1]
        else:
            with pytest.raises(ClusterNotStarted, match="RuntimeError"), dask_map(num_workers=1):
                pytest.fail("started")
    finally:
        over.set()
        killer.join()
    assert len(killed) == deaths
    assert not set(multiprocessing.active_children()) - before
