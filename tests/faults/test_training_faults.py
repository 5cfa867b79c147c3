"""Training is killed at random steps and inside checkpoint writes; resumed, it ends bit for bit the same.

Run as a program this file is the driver: a process that only forks, so that every child starts with the
libraries loaded and no thread running. ``python test_training_faults.py MODE CONFIG FOLDER``.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

CONFIGS = {
    "dmat_i": {"name": "dmat_i", "encoder": "mlp", "hidden_size": 7, "dropout_rate": 0.2, "num_views": 3},
    "dmt": {"name": "dmt", "unlabelled": "instance", "num_views": 2, "num_labelled": 12},
}
EPOCHS = 3
KILLS = 10


def run_training(config, folder, result, *, kill_at_step=None):
    """Train to the end and write loss history and weights' digest to `result`, or be killed."""
    import numpy as np
    import torch
    from pydantic import TypeAdapter

    from gcl.methods import build_method
    from gcl.methods.base import TrainingData
    from gcl.methods.configs import MethodConfig
    from gcl.trainer import train
    from gcl.trainer_config import TrainConfig

    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    x_NF = generator.normal(size=(100, 9)).astype(np.float32)
    y_N = np.where(np.arange(100) < 30, np.arange(100) % 3, -1).astype(np.int32)
    data = TrainingData(100, x_NF, y_N=y_N if config["name"] == "dmt" else None)
    method = build_method(
        TypeAdapter(MethodConfig).validate_python(config | {"embedding_size": 5}),
        num_features=9,
        num_classes=3,
        seed=0,
    )
    steps = iter(range(10**6))

    def should_stop():
        if kill_at_step is not None and next(steps) >= kill_at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = TrainConfig(epochs=EPOCHS, batch_size=34, checkpoint_every=1, schedule="cosine")
    found = train(method, data, settings, seed=0, checkpoint_dir=folder, should_stop=should_stop)
    weights = b"".join(value.numpy().tobytes() for value in method.state_dict().values())
    history = [{name: value.hex() for name, value in terms.items()} for terms in found.history]
    result.write_text(json.dumps({"history": history, "weights": hashlib.sha256(weights).hexdigest()}))


def fork(function):
    """Run `function` in a forked child; True when it ended well, False when it was killed."""
    sys.stdout.flush()
    if child := os.fork():
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return False
        assert os.waitstatus_to_exitcode(status) == 0
        return True
    try:
        function()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def kill_at_write(count):
    """Make the `count`-th open for writing, sync or rename of this process its last act."""
    calls = iter(range(10**6))
    fsync, replace, open_ = os.fsync, Path.replace, Path.open

    def counted(original, applies=lambda *_: True):
        def call(*arguments, **rest):
            if applies(*arguments) and next(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **rest)

        return call

    os.fsync, Path.replace = counted(fsync), counted(replace)
    Path.open = counted(open_, lambda _path, mode="r", *_: "w" in mode)


def drive(mode, config, folder):
    """Kill, resume, compare, again and again; prints how many kills were survived."""
    reference = folder / "reference.json"
    assert fork(lambda: run_training(config, folder / "unbroken", reference))
    expected, kills = reference.read_text(), 0
    random_steps = random.Random(7)
    while True:
        checkpoints, result = folder / f"{mode}-{kills}", folder / f"{mode}-{kills}.json"
        step = random_steps.randrange(1, 3 * EPOCHS - 1)

        def broken(checkpoints=checkpoints, result=result, count=kills, step=step):
            if mode == "writes":
                kill_at_write(count)
            run_training(config, checkpoints, result, kill_at_step=step if mode == "steps" else None)

        finished = fork(broken)
        assert finished == (mode == "writes" and result.exists())
        if not finished:
            assert fork(lambda c=checkpoints, r=result: run_training(config, c, r))
        assert result.read_text() == expected, f"kill {kills} changed the result"
        assert not list(checkpoints.glob(".*")), "partial files are left"
        assert len(list(checkpoints.iterdir())) == 4
        if finished or (mode == "steps" and kills + 1 == KILLS):
            break
        kills += 1
    print(kills)


@pytest.mark.fault
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("mode", ["steps", "writes"])
def test_training_survives_sigkill_during(mode, config, tmp_path):
    driver = [sys.executable, __file__, mode, config, str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(driver, capture_output=True, text=True, check=False, env=environment, timeout=250)
    assert done.returncode == 0, done.stderr
    # A checkpoint is two files of an open, a sync, a rename and a sync of the folder each.
    assert int(done.stdout) == (EPOCHS * 8 if mode == "writes" else KILLS - 1)


if __name__ == "__main__":
    # What a training loads, the optimizer's own imports included, is loaded once, before the first fork.
    for module in ("torch._dynamo", "gcl.trainer", "gcl.methods.dmat_i", "gcl.methods.dmt"):
        import_module(module)
    drive(sys.argv[1], CONFIGS[sys.argv[2]], Path(sys.argv[3]))
