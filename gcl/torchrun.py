"""Starts a training in several processes of this machine with torchrun, and sees to it that none outlives it.

The caller stays the one in charge: it holds the lock of a file in the run's folder. Every process waits for
that lock in a thread, gets it only when the caller has let go or is dead, and ends at once. A request to stop
is a file, too, and so is what the processes have to say; the first one writes the checkpoints, and the result
is taken from the last. All of it lies in a folder that only this user can enter, the way to each other
included (torchrun's own is a port on every network); the numbers they exchange go over the loopback device.
"""

import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gcl import errors
from gcl.checks import CheckFolder
from gcl.errors import TrainingInterrupted, UnsuitableSetting
from gcl.methods.base import Method, TrainingData
from gcl.trainer import EpochReport, TrainingResult, take_up
from gcl.trainer_config import TrainConfig, check_processes
from gcl.workspace import Workspace, row_slices

logger = logging.getLogger(__name__)

LOCK, STOP, EPOCHS, TASK = "running", "stop", "epochs.jsonl", "task.json"
"""In the run's folder: the caller's lock, its request to stop, the epochs so far, what is to be done."""
_LOOK_SECONDS = 0.1
_STOP_SECONDS = 120.0
_END_SECONDS = 10.0
_ROOT = Path(__file__).resolve().parents[1]
# Not `-m`, which would look for modules in the folder one happens to stand in first.
_PROGRAM = (
    *("-P", "-c"),
    "import sys; sys.path.insert(0, sys.argv[1]); from gcl.torchrun_worker import main; main(sys.argv[2])",
    str(_ROOT),
)


class ProcessLost(Exception):
    """A process of a training ended before its time.

    Attributes:
        process: which, ``process 2 of 2``.
        what: how it ended.
        log: file that holds what it has printed.
    """

    def __init__(self, process: str, what: str, log: str) -> None:
        self.process, self.what, self.log = process, what, log
        super().__init__(process, what, log)

    def __str__(self) -> str:
        """Which, how, and what to do."""
        return (
            f"training: {self.process} {self.what}; epochs up to the last checkpoint are kept, run again to "
            f"go on from there (log: {self.log})"
        )


class SharedWorkspace(Workspace):
    """A workspace whose arrays other processes of this user can open, as long as this process has them.

    They are files without a name, as in any workspace, so nothing is left behind by a kill; the way to them
    leads through this process's open files in ``/proc``.

    Args:
        folder: existing folder on a disk with room for them.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._files: dict[int, tuple[Any, np.ndarray]] = {}

    def empty(self, shape: Any, dtype: npt.DTypeLike = np.float32) -> np.ndarray:
        """An uninitialised array in C order, in a file of its own whatever its size.

        Raises:
            OSError: the disk has no room for it.
        """
        num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if num_bytes == 0:
            return np.empty(shape, dtype)
        file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  open as long as the workspace lives
        os.posix_fallocate(file.fileno(), 0, num_bytes)
        array = np.asarray(np.memmap(file, dtype, mode="r+", shape=tuple(shape)))
        self._files[array.__array_interface__["data"][0]] = (file, array)
        return array

    def address(self, array: np.ndarray) -> dict[str, Any]:
        """What `open_shared` needs, of an array of this workspace or of any, which is copied here first."""
        place = array.__array_interface__["data"][0]
        if place not in self._files or array.shape != self._files[place][1].shape:
            copy = self.empty(array.shape, array.dtype)
            for rows in row_slices(len(array), array[:1].nbytes):
                copy[rows] = array[rows]
            return self.address(copy)
        path = f"/proc/{os.getpid()}/fd/{self._files[place][0].fileno()}"
        return {"path": path, "dtype": array.dtype.str, "shape": list(array.shape)}


def open_shared(address: Mapping[str, Any]) -> np.ndarray:
    """An array of another process's `SharedWorkspace`, read-only.

    Raises:
        FileNotFoundError: that process is gone.
    """
    return np.asarray(np.memmap(address["path"], address["dtype"], mode="r", shape=tuple(address["shape"])))


def train_in_processes(
    method: Method,
    data: TrainingData,
    config: TrainConfig,
    *,
    seed: int,
    num_classes: int | None,
    device: str,
    scratch: Path,
    checkpoint_dir: Path,
    identity: Mapping[str, str],
    shared: SharedWorkspace | None = None,
    checks: CheckFolder | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    should_stop: Callable[[], str | None] | None = None,
) -> TrainingResult:
    """Train `method` in `config.num_processes` processes; as `gcl.trainer.train`, which each of them runs.

    Args:
        method: untrained, built with the same `seed`; gets the weights in the end.
        data: what it reads.
        config: optimisation settings; `batch_size` is that of all processes together.
        seed: run seed.
        num_classes: what `method` was built with.
        device: ``cpu``, with gloo; or ``cuda``, with NCCL and a device for each process.
        scratch: existing folder for files of the run; ``processes.log`` in it stays.
        checkpoint_dir: where checkpoints are kept.
        identity: as for `train`.
        shared: where the arrays of `data` lie; what lies elsewhere is copied to a file in `scratch`.
        checks: snapshots to keep; the first process takes them.
        on_epoch: called here after each epoch.
        should_stop: asked here, ten times a second; a reason stops the run.

    Raises:
        UnsuitableSetting: a method that several processes cannot train, or more processes than devices.
        ProcessLost: a process died, or failed for a reason that no error of ours names.
        TrainingInterrupted: stopped by `should_stop` or the deadline.
        as `gcl.trainer.train`.
    """
    check_processes(method.config)
    method.check(data)
    if torch.device(device).type == "cuda" and torch.cuda.device_count() < config.num_processes:
        raise UnsuitableSetting(
            f"train.num_processes={config.num_processes}, and this machine has {torch.cuda.device_count()} "
            "CUDA devices: one process a device at most"
        )
    shared = shared or SharedWorkspace(scratch)
    arrays = {"x_NF": data.x_NF, "y_N": data.y_N}
    task = {
        "method": method.config.model_dump(mode="json"),
        "train": config.model_dump(mode="json"),
        "num_classes": num_classes,
        "num_nodes": data.num_nodes,
        "arrays": {name: shared.address(array) for name, array in arrays.items() if array is not None},
        "seed": seed,
        "device": torch.device(device).type,
        "checkpoint_dir": str(checkpoint_dir),
        "identity": dict(identity),
        "checks": None if checks is None else {"folder": str(checks.folder), "epochs": checks.epochs},
        "workspace": str(scratch),
    }
    epoch_seconds: list[float] = []

    def note(report: EpochReport) -> None:
        epoch_seconds.append(report.seconds)
        if on_epoch is not None:
            on_epoch(report)

    log = scratch / "processes.log"
    with _running(task, config.num_processes, scratch, log) as (folder, torchrun):
        _attend(torchrun, folder, note, should_stop)
        _judge(folder, config.num_processes, torchrun.returncode, log)
    return take_up(
        method,
        data,
        config,
        seed=seed,
        device=device,
        checkpoint_dir=checkpoint_dir,
        identity=identity,
        epoch_seconds=epoch_seconds,
    )


@contextmanager
def _running(
    task: Mapping[str, Any], count: int, scratch: Path, log: Path
) -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """The run's folder and torchrun with the processes; when the body ends, however it ends, they end."""
    with tempfile.TemporaryDirectory(prefix="processes-", dir=scratch) as name, log.open("wb") as output:
        folder = Path(name)
        (folder / TASK).write_text(json.dumps(task))
        with (folder / LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # A session of its own: Ctrl-C is for the caller, who asks the processes to stop.
            torchrun = subprocess.Popen(  # noqa: S603  our own interpreter
                torchrun_command(folder, count, *_PROGRAM, str(folder)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=torchrun_environment(count),
                start_new_session=True,
            )
            try:
                yield folder, torchrun
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)
                try:
                    torchrun.wait(_END_SECONDS)
                except subprocess.TimeoutExpired:
                    torchrun.kill()
                    torchrun.wait()


def torchrun_command(folder: Path, count: int, *program: str) -> list[str]:
    """Call torchrun so that its agent meets itself in a file; its own modes open a port on all networks.

    The processes must not count on the port that it tells them; `torchrun_environment` goes with it.

    Args:
        folder: of this run alone.
        count: processes.
        program: arguments of Python in each of them.
    """
    return [
        *(sys.executable, "-P", "-m", "torch.distributed.run", f"--nproc-per-node={count}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={folder / 'rendezvous'}", "--rdzv-conf=store_type=file"),
        *("--local-addr=127.0.0.1", f"--monitor-interval={_LOOK_SECONDS}", f"--log-dir={folder / 'logs'}"),
        *("--max-restarts=0", "--no-python", sys.executable, *program),
    ]


def torchrun_environment(count: int) -> dict[str, str]:
    """The environment of torchrun and its processes: the loopback device, and a share of the cores each."""
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    return {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        # Whatever device a shell is set up for: these processes are on one machine.
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }


def _attend(
    torchrun: "subprocess.Popen[bytes]",
    folder: Path,
    on_epoch: Callable[[EpochReport], None],
    should_stop: Callable[[], str | None] | None,
) -> None:
    """Pass epochs on to the caller and its wish to stop to the processes, until they have ended."""
    asked_at, reason, offset = 0.0, None, 0
    while True:
        has_ended = torchrun.poll() is not None  # before the look: what they said last counts too
        offset = _tell_epochs(folder / EPOCHS, offset, on_epoch)
        if has_ended:
            return
        if reason is None and should_stop is not None and (reason := should_stop()):
            partial = folder / f"{STOP}.partial"
            partial.write_text(reason)
            partial.replace(folder / STOP)
            asked_at = time.monotonic()
        if reason is not None and time.monotonic() - asked_at > _STOP_SECONDS:
            raise TrainingInterrupted(
                f"{reason}; the processes did not end their step within {_STOP_SECONDS:.0f} s and were ended"
            )
        time.sleep(_LOOK_SECONDS)


def _tell_epochs(path: Path, offset: int, on_epoch: Callable[[EpochReport], None]) -> int:
    """Report the lines from `offset` on; returns where the next begins."""
    if not path.exists():
        return offset
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):  # not yet whole
                break
            on_epoch(EpochReport(**json.loads(line)))
            offset += len(line)
    return offset


def _judge(folder: Path, count: int, returncode: int, log: Path) -> None:
    """Raise what ended the training, unless it is finished: what one died of, not what the others felt."""
    ends = [_read_end(folder, rank) for rank in range(count)]
    if all(end is not None and end["error"] is None for end in ends):
        return
    for rank, end in enumerate(ends):
        if end is not None and end["error"] not in (None, "PeerLost"):
            _raise_again(f"process {rank + 1} of {count}", end, log)
    silent = next((rank for rank, end in enumerate(ends) if end is None), None)
    text = log.read_text(errors="replace")
    if silent is None:
        raise ProcessLost("all processes", "lost each other, for no reason that one of them knows", str(log))
    if returncode < 0:
        raise ProcessLost("torchrun", f"was ended by {signal.Signals(-returncode).name}", str(log))
    if found := re.search(r"Signal \d+ \((SIG\w+)\) received by PID", text):
        memory = ", most likely for want of memory" if found[1] == "SIGKILL" else ""
        raise ProcessLost(f"process {silent + 1} of {count}", f"was ended by {found[1]}{memory}", str(log))
    raise ProcessLost(f"process {silent + 1} of {count}", "ended without a word", str(log))


def _read_end(folder: Path, rank: int) -> dict[str, Any] | None:
    try:
        return dict(json.loads((folder / f"end-{rank}.json").read_bytes()))
    except FileNotFoundError:
        return None


def _raise_again(process: str, end: Mapping[str, Any], log: Path) -> None:
    """An error of a process, as the caller would have raised it; of kinds we do not know, its text."""
    kind, arguments = getattr(errors, end["error"], None), end["arguments"]
    if end["error"] == "OSError" and len(arguments) >= 2:
        raise OSError(*arguments)
    if isinstance(kind, type) and issubclass(kind, Exception):
        raise kind(*arguments)
    raise ProcessLost(process, f"failed with {end['error']}: {end['text']}", str(log))
