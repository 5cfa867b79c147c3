"""The stage train with several processes: results, interruptions, deaths, and nothing that stays behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch

from flows.config import ConfigurationError, load_config
from flows.exit_codes import describe, exit_code
from gcl.checks import CheckFolder
from gcl.errors import NonFiniteLoss, UnsuitableSetting
from gcl.methods import build_method
from gcl.methods.base import TrainingData
from gcl.methods.configs import DmatIConfig
from gcl.torchrun import ProcessLost, SharedWorkspace, open_shared, train_in_processes
from gcl.trainer import train
from gcl.trainer_config import TrainConfig
from tasks.train import TrainStageConfig, code_of
from tests.faults.injection import REPOSITORY
from tests.tiny_runs import DirectRun, run_direct, tiny

pytestmark = pytest.mark.slow
TWO = "train.num_processes=2"
EPOCHS = 250
LONG = (TWO, f"train.epochs={EPOCHS}", "train.checkpoint_every=10")
PROGRAM = """
import signal, sys
from pathlib import Path
from flows.exit_codes import describe
from tests.faults.injection import quick_contracts, quick_keys
from tests.tiny_runs import run_direct, tiny
quick_contracts()
quick_keys()
signal.signal(signal.SIGTERM, lambda *_: None)  # which the stage sends again when it has stopped
if __name__ == "__main__":
    try:
        run_direct(tiny(*sys.argv[2:]), Path(sys.argv[1]), until="train")
    except Exception as error:
        print(describe(error), flush=True)
        raise
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@contextmanager
def quickly() -> Iterator[None]:
    """Contracts pass unread and keys do not read sources, as in the program above."""
    from types import SimpleNamespace

    from tasks.artifact import hash_json
    from tests.faults.injection import one_page

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.identity.closure_digest", lambda modules: hash_json(sorted(set(modules))))
        patch.setattr("tasks.stage.check_table", lambda *_, **__: SimpleNamespace(passed=1))
        patch.setattr("data_contracts.docs.write_data_docs", one_page)
        yield


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of the long run that nothing interrupts."""
    with quickly():
        return run_direct(tiny(*LONG), tmp_path_factory.mktemp("unbroken"), until="train").digests


def below(process: int) -> list[psutil.Process]:
    return psutil.Process(process).children(recursive=True)


def workers_of(process: int) -> list[psutil.Process]:
    """The processes that train, by rank; torchrun is between them and us."""
    found = [child for child in below(process) if "torchrun_worker" in " ".join(child.cmdline()[:4])]
    return sorted(found, key=lambda child: child.environ()["RANK"])


def table(run: DirectRun, store: Path, kind: str, name: str) -> dict[str, list[float]]:
    folder = store / run.state.artifacts[kind].uri
    return dict(pq.read_table(folder / f"{name}.parquet").to_pydict())


@pytest.fixture(scope="module")
def in_both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DirectRun, DirectRun]:
    store = tmp_path_factory.mktemp("both") / "store"
    settings = ("train.epochs=4", "train.num_checks=2")
    alone, together = run_direct(tiny(*settings), store), run_direct(tiny(*settings, TWO), store)
    return store, alone, together


def test_a_run_in_two_processes_is_that_in_one(in_both: tuple[Path, DirectRun, DirectRun]) -> None:
    """Every contract holds; losses and embeddings agree, and so does what does not depend on last bits."""
    store, alone, together = in_both
    assert together.ran[0] == "train", "what comes before is taken from the store"
    histories = [table(run, store, "model", "history") for run in (alone, together)]
    assert histories[0].keys() == histories[1].keys()
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5, err_msg=name)
    for kind, name, column in (("embeddings", "embeddings", "z"), ("checks", "checks", "z")):
        first, second = (np.array(table(run, store, kind, name)[column]) for run in (alone, together))
        np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-5, err_msg=kind)
    assert alone.digests["controls"] == together.digests["controls"]


def test_the_number_of_processes_has_a_key_of_its_own(in_both: tuple[Path, DirectRun, DirectRun]) -> None:
    store, alone, together = in_both
    assert alone.keys["train"] != together.keys["train"]
    assert run_direct(tiny("train.epochs=4", "train.num_checks=2", TWO), store).ran == []


def test_the_program_of_the_processes_is_part_of_the_key() -> None:
    config = tiny(TWO)
    assert "gcl.torchrun_worker" in code_of(TrainStageConfig(method=config.method, train=config.train))


def test_nothing_stays_behind_a_run(in_both: tuple[Path, DirectRun, DirectRun]) -> None:
    store, *_ = in_both
    assert workers_of(os.getpid()) == []
    assert not list((store / ".scratch").iterdir())
    assert not list((store / ".tmp").iterdir())


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("method.name=grace", "method.name=grace is trained in one process: set train.num_processes=1"),
        ("method.dropout_rate=0.2", "method.dropout_rate is drawn inside the encoder"),
    ],
)
def test_what_several_processes_cannot_train_is_refused_before_anything_runs(setting: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_config(
            preset="none", overrides=[TWO, "method.encoder=mlp"][: 1 + ("grace" not in setting)] + [setting]
        )
    assert exit_code(caught.value) == 2
    assert "\n" not in describe(caught.value)


@pytest.fixture
def long_run(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A stage in the middle of its training, with a checkpoint on disk."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path / "store"), *LONG],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("store/.scratch/train-*/checkpoints/*.json")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield process
    if process.poll() is None:
        for child in below(process.pid):
            child.kill()
        process.kill()
    process.communicate()


def goes_on(folder: Path, unbroken: dict[str, str]) -> None:
    """The rerun goes on from the checkpoint, gives the bytes of the unbroken run, and tidies up."""
    names = [path.stem for path in folder.glob("store/.scratch/train-*/checkpoints/*.json")]
    finished = max(int(name.removeprefix("epoch-")) for name in names)
    assert 0 < finished < EPOCHS
    with quickly():
        again = run_direct(tiny(*LONG), folder / "store", until="train")
    assert again.ran == ["train"]
    (seconds,) = (folder / "store").glob("train/*/volatile/epoch_seconds.json")
    assert seconds.read_text().count(",") + 1 == EPOCHS - finished
    assert again.digests == unbroken
    assert not list((folder / "store" / ".scratch").iterdir())


@pytest.mark.fault
def test_sigterm_leaves_a_checkpoint_and_no_process(
    long_run: "subprocess.Popen[str]", tmp_path: Path, unbroken: dict[str, str]
) -> None:
    children = below(long_run.pid)
    assert len(children) == 3
    time.sleep(0.3)
    long_run.send_signal(signal.SIGTERM)
    printed, _ = long_run.communicate(timeout=30)
    assert long_run.returncode == 1
    assert psutil.wait_procs(children, timeout=5)[1] == []
    names = [path.stem for path in tmp_path.glob("store/.scratch/train-*/checkpoints/*.json")]
    newest = max(int(name.removeprefix("epoch-")) for name in names)
    # Every tenth epoch has a checkpoint anyway; what is finished is mostly between two.
    assert f"signal SIGTERM received; {newest} of {EPOCHS} epochs are finished" in printed
    goes_on(tmp_path, unbroken)


@pytest.mark.fault
def test_a_signal_to_all_processes_at_once_is_one_to_stop(long_run: "subprocess.Popen[str]") -> None:
    """As a service manager sends it: to the stage, to torchrun, and to those it has started."""
    children = below(long_run.pid)
    for process in (psutil.Process(long_run.pid), *children):
        process.send_signal(signal.SIGTERM)
    printed, _ = long_run.communicate(timeout=60)
    assert "signal SIGTERM received;" in printed
    assert psutil.wait_procs(children, timeout=5)[1] == []


@pytest.mark.fault
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_killed_process_ends_the_run_in_one_line(
    long_run: "subprocess.Popen[str]", tmp_path: Path, unbroken: dict[str, str], rank: int
) -> None:
    children = below(long_run.pid)
    workers_of(long_run.pid)[rank].kill()
    killed = time.monotonic()
    printed, _ = long_run.communicate(timeout=60)
    assert time.monotonic() - killed < 40
    assert long_run.returncode == 1
    (line,) = printed.splitlines()
    assert line.startswith(
        f"training: process {rank + 1} of 2 was ended by SIGKILL, most likely for want of mem"
    )
    assert "run again to go on" in line
    assert psutil.wait_procs(children, timeout=5)[1] == []
    if rank == 1:
        goes_on(tmp_path, unbroken)


@pytest.mark.fault
def test_no_process_outlives_a_killed_stage(long_run: "subprocess.Popen[str]") -> None:
    children = below(long_run.pid)
    long_run.kill()
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.fault
def test_no_process_outlives_a_killed_torchrun(long_run: "subprocess.Popen[str]") -> None:
    children = below(long_run.pid)
    psutil.Process(long_run.pid).children()[0].kill()
    printed, _ = long_run.communicate(timeout=60)
    (line,) = printed.splitlines()
    assert line.startswith("training: torchrun was ended by SIGKILL")
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_everything_listens_on_loopback(long_run: "subprocess.Popen[str]") -> None:
    listening = [
        connection.laddr.ip
        for process in (psutil.Process(long_run.pid), *below(long_run.pid))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) <= {"127.0.0.1", "::1"}


def small(folder: Path, **settings: object) -> dict[str, object]:
    """Arguments of a small training in two processes."""
    data = TrainingData(90, np.random.default_rng(0).normal(size=(90, 8)).astype(np.float32))
    method = build_method(DmatIConfig(embedding_size=4), num_features=8, seed=0)
    config = TrainConfig(epochs=2, batch_size=45, num_processes=2, checkpoint_every=1)
    return {
        "method": method, "data": data, "config": config, "seed": 0, "num_classes": None, "device": "cpu",
        "scratch": folder, "checkpoint_dir": folder / "checkpoints", "identity": {}, **settings,
    }  # fmt: skip


def test_an_error_of_a_process_is_raised_as_the_one_it_is(tmp_path: Path) -> None:
    arguments = small(tmp_path)
    arguments["data"].x_NF[3] = np.nan  # type: ignore[attr-defined]
    with pytest.raises(NonFiniteLoss, match="loss is not finite in epoch 1"):
        train_in_processes(**arguments)  # type: ignore[arg-type]
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(FileExistsError, match="checkpoints"):
        train_in_processes(**small(tmp_path))  # type: ignore[arg-type]
    assert workers_of(os.getpid()) == []


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_an_error_of_no_known_kind_comes_with_its_text_and_a_log(tmp_path: Path) -> None:
    checks = CheckFolder(tmp_path / "checks", (1,))
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "epoch-00000001.safetensors").mkdir()
    with pytest.raises(OSError, match="directory"):
        train_in_processes(**small(tmp_path, checks=checks))  # type: ignore[arg-type]
    unknown = small(tmp_path, num_classes="three", identity={"x": "y"})
    unknown["checkpoint_dir"] = tmp_path / "others"
    method = unknown["method"]
    method.config = method.config.model_copy(update={"embedding_size": "wide"})  # type: ignore[attr-defined]
    with pytest.raises(
        ProcessLost, match=r"process 1 of 2 failed with ValidationError: .*log: .*\.log"
    ) as caught:
        train_in_processes(**unknown)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert "Traceback" in (tmp_path / "processes.log").read_text()


def test_an_error_of_the_caller_ends_the_processes(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def on_epoch(report: object) -> None:
        raise Enough

    endless = TrainConfig(epochs=100_000, batch_size=32, num_processes=2)
    with pytest.raises(Enough):
        train_in_processes(**small(tmp_path, config=endless, on_epoch=on_epoch))  # type: ignore[arg-type]
    assert workers_of(os.getpid()) == []


def test_more_processes_than_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UnsuitableSetting, match=r"train\.num_processes=2, and this machine has \d CUDA devices"
    ):
        config = TrainConfig(num_processes=2)
        train_in_processes(**small(tmp_path, config=config, device="cuda"))  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_devices_train_as_one(tmp_path: Path) -> None:
    arguments = small(tmp_path)
    config = TrainConfig(epochs=2, batch_size=45, checkpoint_every=1)
    alone = train(arguments["method"], arguments["data"], config, seed=0, device="cuda")  # type: ignore[arg-type]
    together = train_in_processes(**small(tmp_path, device="cuda"))  # type: ignore[arg-type]
    for first, second in zip(alone.history, together.history, strict=True):
        assert second == pytest.approx(first, rel=1e-4)


READER = """
import json, sys
from gcl.torchrun import open_shared
array = open_shared(json.loads(sys.argv[1]))
print(array.dtype, array.shape, float(array.sum()), array.flags.writeable)
"""


def test_rows_are_read_by_other_processes_and_leave_no_file(tmp_path: Path) -> None:
    import json

    shared = SharedWorkspace(tmp_path)
    rows = shared.empty((30, 4))
    rows[:] = 2
    others = np.arange(5, dtype=np.int32)
    for array, said in ((rows, "float32 (30, 4) 240.0 False"), (others, "int32 (5,) 10.0 False")):
        address = json.dumps(shared.address(array))
        done = subprocess.run(
            [sys.executable, "-c", READER, address], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == said
    assert list(tmp_path.iterdir()) == []
    address = shared.address(rows)
    del shared, rows
    with pytest.raises(FileNotFoundError):
        open_shared(address)
