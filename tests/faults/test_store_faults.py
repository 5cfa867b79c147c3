"""R1, R4, R11: whole runs stopped by signals, and stores on disks that fill up; what is there afterwards."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.config import load_config
from tasks.errors import StoreFull
from tasks.maintenance import verify_store
from tasks.store import Store
from tests.tiny_runs import TINY, key_of, publish, run_direct, tiny

pytestmark = [pytest.mark.fault, pytest.mark.slow]
REPOSITORY = Path(__file__).resolve().parents[2]
EPOCHS = 800
LONG = (f"train.epochs={EPOCHS}", "train.checkpoint_every=5")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_direct(tiny(*LONG), tmp_path_factory.mktemp("undisturbed") / "store", until="train").digests


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_direct(tiny(), tmp_path_factory.mktemp("finished") / "store", until="evaluate").digests


def start_run(folder: Path) -> "subprocess.Popen[bytes]":
    """A real `gclflow run` with a server of its own."""
    settings = [f"--set={item}" for item in (*TINY, *LONG)]
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return subprocess.Popen(
        [sys.executable, "-c", "from flows.cli import main; main()", "run", "--preset=none", *settings,
         "--store", str(folder / "store"), "--out", str(folder / "out"), "--until=train"],
        cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_training(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Until some checkpoints of the training have been written."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, (process.stderr.read() if process.stderr else b"").decode()
        if any(
            path.stem >= "epoch-00000015" for path in folder.glob("store/.scratch/train-*/checkpoints/*.json")
        ):
            return
        time.sleep(0.02)
    pytest.fail("training did not start")


@pytest.fixture(scope="module")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture
def training(
    tmp_path: Path, server_home: Path
) -> Iterator["tuple[subprocess.Popen[bytes], list[psutil.Process]]"]:
    """A run that is training, and all processes it has started."""
    database = server_home / ".server"
    if database.exists():  # creating one takes longer than all else
        shutil.copytree(database, tmp_path / "store" / ".server")
    process = start_run(tmp_path)
    try:
        wait_for_training(process, tmp_path)
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("prefect.server" in " ".join(child.cmdline()) for child in children)
        yield process, children
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
        shutil.copytree(tmp_path / "store" / ".server", database, dirs_exist_ok=True)


def check_rerun(folder: Path, expected: dict[str, str]) -> None:
    """What was finished is kept, the training goes on, and its bytes are the undisturbed ones."""
    assert verify_store(Store(folder / "store")) == []
    assert not list((folder / "store" / ".tmp").iterdir())
    again = run_direct(tiny(*LONG), folder / "store", until="train")
    assert again.ran == ["train"]
    assert again.digests == expected
    (seconds,) = (folder / "store").glob("train/*/volatile/epoch_seconds.json")
    assert len(json.loads(seconds.read_bytes())) <= EPOCHS - 15, "it went on from a checkpoint"
    assert not list((folder / "store" / ".scratch").glob("train-*"))


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)],
    ids=["SIGTERM", "SIGINT"],
)
def test_run_stopped_in_training_leaves_no_process_and_resumes(
    number: signal.Signals,
    training: "tuple[subprocess.Popen[bytes], list[psutil.Process]]",
    tmp_path: Path,
    undisturbed: dict[str, str],
) -> None:
    process, children = training
    started = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - started <= 10
    assert process.returncode == 130
    assert "Traceback" not in errors.decode()
    cause = " by signal SIGTERM" if number == signal.SIGTERM else ""
    assert errors.decode().strip().startswith(f"gclflow: interrupted{cause}; "), errors.decode()
    assert len(errors.decode().strip().splitlines()) == 1
    assert psutil.wait_procs(children, timeout=3)[1] == [], "nothing outlives the run, the server included"
    failure = json.loads((tmp_path / "out" / "failure.json").read_text())
    assert failure["exit_code"] == 130
    check_rerun(tmp_path, undisturbed)


@pytest.mark.nightly
def test_run_killed_in_training_leaves_no_process_and_resumes(
    training: "tuple[subprocess.Popen[bytes], list[psutil.Process]]",
    tmp_path: Path,
    undisturbed: dict[str, str],
) -> None:
    process, children = training
    process.kill()
    process.communicate(timeout=30)
    assert psutil.wait_procs(children, timeout=10)[1] == [], "the kernel ends the server with its parent"
    check_rerun(tmp_path, undisturbed)


KILLED_AFTER = """
import os, signal, sys
from pathlib import Path
from tests.tiny_runs import run_direct, tiny
run_direct(tiny(), Path(sys.argv[1]), until=sys.argv[2])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["ingest", "train", "evaluate"])
def test_stages_finished_before_a_kill_are_not_computed_again(
    name: str, tmp_path: Path, finished: dict[str, str]
) -> None:
    """A kill at a boundary, right after the publication of a stage; in a process of its own, not a fork:
    threads of numerical libraries that this one has started would be missing in a forked child."""
    from tests.tiny_runs import PLAIN_STAGES

    store = tmp_path / "store"
    command = [sys.executable, "-c", KILLED_AFTER, str(store), name]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=200, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    again = run_direct(tiny(), store, until="evaluate")
    assert again.ran == list(PLAIN_STAGES[PLAIN_STAGES.index(name) + 1 : -1])
    assert again.digests == finished


def test_store_reports_a_file_beyond_its_size_limit_and_works_again_afterwards(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kept = publish(store, "ingest", key_of("kept"), {"graph/small": b"x"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(StoreFull) as caught:
            publish(
                store, "ingest", key_of("large"), {"graph/first": b"x" * 100, "graph/large": bytes(1 << 20)}
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.needed_bytes >= (1 << 16) + 100
    assert "gclflow store gc" in str(caught.value)
    assert [key for _, key in store.folders()] == [kept.key]
    assert store.verify("ingest", kept.key, full=True) == kept
    assert not list((store.root / ".tmp").iterdir())
    publish(store, "ingest", key_of("large"), {"graph/large": bytes(1 << 20)})
    assert len(list(store.folders())) == 2


def test_smooth_reports_a_full_store_through_arrow_as_well(tmp_path: Path) -> None:
    """Parquet is written by C++ through a Python file; its failure must still be told as what it is."""
    config = load_config(preset="none", overrides=[*TINY, "dataset.nodes=3000", "dataset.features=64"])[0]
    run_direct(config, tmp_path / "store", until="ingest")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, limits[1]))
    try:
        with pytest.raises(StoreFull):
            run_direct(config, tmp_path / "store", until="smooth")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run_direct(config, tmp_path / "store", until="smooth").ran == ["smooth"]
