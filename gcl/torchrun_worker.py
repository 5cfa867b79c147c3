"""What torchrun runs in each process of a training: opens the task, joins the others, trains, reports.

See `gcl.torchrun`, which starts it.
"""

import fcntl
import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from torch._C._distributed_c10d import FileStore

from gcl.checks import CheckFolder
from gcl.distributed import ProcessGroup
from gcl.locked_files import write_atomically
from gcl.methods import build_method
from gcl.methods.base import TrainingData
from gcl.methods.configs import MethodConfig
from gcl.torchrun import EPOCHS, LOCK, STOP, TASK, open_shared
from gcl.trainer import EpochReport, train
from gcl.trainer_config import TrainConfig
from gcl.workspace import Workspace

# The others wait so long for one that is busy, with a check of all nodes or a slow disk. One that dies is
# noticed at once.
_PATIENCE = timedelta(hours=1)


def main(folder: str) -> None:
    """Be the process that torchrun's ``RANK`` says, for the run in `folder`; never returns."""
    rank, count, run = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), Path(folder)
    _end_with_caller(run)
    stop = _Stop(run / STOP, listens=rank == 0)
    end: dict[str, Any] = {"error": None}
    try:
        _train(run, rank, count, stop)
    except BaseException as error:
        traceback.print_exc()
        kind = "OSError" if isinstance(error, OSError) else type(error).__name__
        end = {"error": kind, "arguments": _plain(error), "text": " ".join(str(error).split())}
    write_atomically(run / f"end-{rank}.json", json.dumps(end).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if end["error"] is None else 1)  # the group's own end would wait for those who are gone


def _train(run: Path, rank: int, count: int, stop: "_Stop") -> None:
    task = json.loads((run / TASK).read_bytes())
    device = task["device"]
    if device == "cuda":
        torch.cuda.set_device(rank)
        device = f"cuda:{rank}"
    dist.init_process_group(
        "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        store=FileStore(str(run / "store"), count),
        rank=rank,
        world_size=count,
        timeout=_PATIENCE,
    )
    processes = ProcessGroup()
    arrays = {name: open_shared(address) for name, address in task["arrays"].items()}
    data = TrainingData(
        task["num_nodes"],
        x_NF=arrays["x_NF"],
        y_N=arrays.get("y_N"),
        workspace=Workspace(Path(task["workspace"])),
    )
    method = build_method(
        TypeAdapter(MethodConfig).validate_python(task["method"]),
        num_features=arrays["x_NF"].shape[1],
        num_classes=task["num_classes"],
        num_nodes=data.num_nodes,
        seed=task["seed"],
    )
    kept = task["checks"] or {"folder": run, "epochs": ()}
    checks = CheckFolder(Path(kept["folder"]), tuple(kept["epochs"]))

    def on_epoch(report: EpochReport) -> None:
        if report.epoch in checks.epochs:
            checks.keep(report.epoch, method.embed(data))
        with (run / EPOCHS).open("a") as file:
            file.write(json.dumps(asdict(report)) + "\n")

    train(
        method,
        data,
        TrainConfig.model_validate(task["train"]),
        seed=task["seed"],
        device=device,
        checkpoint_dir=Path(task["checkpoint_dir"]),
        identity=task["identity"],
        on_epoch=on_epoch if processes.is_first else None,
        should_stop=stop.reason,
        processes=processes,
    )
    processes.wait()  # the first may still be writing the last checkpoint


class _Stop:
    """The wish to stop: the caller's file, or a SIGTERM, which comes to all processes and one minds."""

    def __init__(self, file: Path, *, listens: bool) -> None:
        self.file, self.signal = file, 0
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._remember if listens else signal.SIG_IGN)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    def reason(self) -> str | None:
        """Why to stop, if at all."""
        if self.file.exists():
            return self.file.read_text()
        return f"signal {signal.Signals(self.signal).name} received" if self.signal else None


def _end_with_caller(run: Path) -> None:
    """End this process when the caller lets go of its lock, or the kernel does because the caller is dead."""
    try:
        lock = (run / LOCK).open("rb")
    except FileNotFoundError:  # it came and went while this process was starting
        os._exit(1)

    def wait() -> None:
        fcntl.flock(lock, fcntl.LOCK_SH)
        os._exit(1)

    threading.Thread(target=wait, name="ends-with-caller", daemon=True).start()


def _plain(error: BaseException) -> list[Any]:
    if isinstance(error, OSError):
        return [error.errno, error.strerror, None if error.filename is None else str(error.filename)]
    return [argument if isinstance(argument, str | int | float) else str(argument) for argument in error.args]
