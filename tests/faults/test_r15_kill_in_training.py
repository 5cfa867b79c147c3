"""R15: training of every method, killed at random steps and in checkpoint writes, ends bit for bit the same.

Run as a program this file is the driver: a process that only forks, so that every child starts with the
libraries loaded and no thread running. ``python test_r15_kill_in_training.py MODE STRIDE FOLDER CONFIG...``.
"""

import hashlib
import json
import os
import random
import signal
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.faults.injection import Shim, act_of, fork, program, quick_syncs
from tests.unit.gcl.test_method_battery import SETTINGS as METHOD_SETTINGS
from tests.unit.gcl.test_method_battery import make_data, make_method

EPOCHS, BATCH_SIZE = 3, 34
KILLS_AT_STEPS = 10
# A checkpoint is two files of an open, a sync, a rename and a sync of the folder each.
CALLS_A_CHECKPOINT = 8
ONE_OF_EACH = list({config.name: key for key, config in reversed(METHOD_SETTINGS.items())}.values())


def run_training(key, folder, result, *, kill_at_step=None):  # type: ignore[no-untyped-def]
    """Train to the end and write loss history and weights' digest to `result`, or be killed."""
    import torch

    from gcl.trainer import train
    from gcl.trainer_config import TrainConfig

    torch.set_num_threads(1)
    config = METHOD_SETTINGS[key]
    method, data = make_method(config), make_data(config.name)
    steps = iter(range(10**6))

    def should_stop():  # type: ignore[no-untyped-def]
        if kill_at_step is not None and next(steps) >= kill_at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = TrainConfig(epochs=EPOCHS, batch_size=BATCH_SIZE, checkpoint_every=1, schedule="cosine")
    found = train(method, data, settings, seed=0, checkpoint_dir=folder, should_stop=should_stop)
    weights = b"".join(value.numpy().tobytes() for value in method.state_dict().values())
    history = [{name: value.hex() for name, value in terms.items()} for terms in found.history]
    result.write_text(json.dumps({"history": history, "weights": hashlib.sha256(weights).hexdigest()}))


def broken(mode, key, checkpoints, result, place):  # type: ignore[no-untyped-def]
    """One training that is killed at a place: the n-th step, or the n-th call that writes a checkpoint."""
    if mode == "writes":
        Shim(checkpoints, place, act_of("kill")).install()
    run_training(key, checkpoints, result, kill_at_step=place if mode == "steps" else None)


def drive_one(mode, stride, folder, key):  # type: ignore[no-untyped-def]
    """Kill, resume, compare, again and again; how many kills were survived."""
    folder.mkdir()
    reference, kills = folder / "reference.json", 0
    assert fork(lambda: run_training(key, folder / "unbroken", reference)) == 0
    expected, draws = reference.read_text(), random.Random(7)
    config = METHOD_SETTINGS[key]
    batches = make_method(config).epoch_batches(
        make_data(config.name), epoch=0, seed=0, batch_size=BATCH_SIZE
    )
    num_steps = EPOCHS * len(list(batches))
    if mode == "steps":
        places = draws.sample(range(1, num_steps), k=min(KILLS_AT_STEPS // stride, num_steps - 1))
    else:
        places = list(range(1 + draws.randrange(stride), EPOCHS * CALLS_A_CHECKPOINT + 1, stride))
    for place in places:
        checkpoints, result = folder / f"{mode}-{place}", folder / f"{mode}-{place}.json"
        code = fork(lambda c=checkpoints, r=result, p=place: broken(mode, key, c, r, p))  # type: ignore[misc]
        assert code == -signal.SIGKILL, f"{key}: {mode} {place} was not reached: {code}"
        assert fork(lambda c=checkpoints, r=result: run_training(key, c, r)) == 0  # type: ignore[misc]
        assert result.read_text() == expected, f"{key}: {mode} {place} changed the result"
        assert not list(checkpoints.glob(".*")), "partial files are left"
        assert len(list(checkpoints.iterdir())) == 4
        kills += 1
    return kills


def drive(mode, stride, folder, *keys):  # type: ignore[no-untyped-def]
    """All these configurations; prints the kills survived."""
    # What a training loads, the optimizer's own imports included, is loaded once, before the first fork.
    from gcl.methods import method_class

    for module in ("torch._dynamo", "gcl.trainer", "dgl", "sklearn.cluster", "scipy.optimize"):
        import_module(module)
    for key in keys:
        method_class(METHOD_SETTINGS[key].name)
    quick_syncs()
    kills = {key: 0 for key in keys}
    for one in mode.split("+"):
        for key in keys:
            kills[key] += drive_one(one, int(stride), folder / f"{one}-{key}", key)
    print(json.dumps(kills))


def kills_survived(mode: str, stride: int, folder: Path, keys: list[str]) -> dict[str, int]:
    printed = program(__file__, mode, stride, folder, *keys, seconds=850)
    kills: dict[str, int] = json.loads(printed.splitlines()[-1])
    assert list(kills) == keys
    return kills


@pytest.mark.fault
@pytest.mark.slow
def test_training_of_every_method_survives_sigkill(tmp_path: Path) -> None:
    """A few kills of each kind a method; all of them, of all configurations, are the nightly test's."""
    kills = kills_survived("steps+writes", 10, tmp_path, ONE_OF_EACH)
    assert min(kills.values()) >= 3


@pytest.mark.fault
@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["steps", "writes"])
def test_training_of_every_configuration_survives_sigkill_anywhere(mode: str, tmp_path: Path) -> None:
    kills = kills_survived(mode, 1, tmp_path, list(METHOD_SETTINGS))
    assert min(kills.values()) >= (2 if mode == "steps" else EPOCHS * CALLS_A_CHECKPOINT)


def test_every_registered_method_is_killed() -> None:
    from gcl.methods import METHODS

    assert {METHOD_SETTINGS[key].name for key in ONE_OF_EACH} == set(METHODS)


if __name__ == "__main__":
    drive(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
