"""R16: a checkpoint of another run, by any field of what it belongs to, is refused with that field named."""

import json
import shutil
from pathlib import Path

import pytest

from flows.exit_codes import describe, exit_code
from gcl.checkpoint import _sealed
from gcl.config import result_fields
from gcl.errors import CheckpointMismatch, TrainingInterrupted
from gcl.trainer import train
from gcl.trainer_config import TrainConfig
from tests.tiny_runs import run_direct, tiny
from tests.unit.gcl.test_method_battery import SETTINGS as METHOD_SETTINGS
from tests.unit.gcl.test_method_battery import make_data, make_method

pytestmark = pytest.mark.fault
SETTINGS = TrainConfig(epochs=2, batch_size=64, checkpoint_every=1)
IDENTITY = {"smoothed": "aa", "graph": "bb"}
FIRST_OF_EACH = {config.name: config for config in reversed(METHOD_SETTINGS.values())}


def rewrite(path: Path, **changes: object) -> None:
    """Change a checkpoint's record and seal it again, as another version of the program might have."""
    record = json.loads(path.read_text())["record"] | changes
    path.write_bytes(_sealed(record))


def run(config, folder: Path) -> int:  # type: ignore[no-untyped-def]
    result = train(
        make_method(config),
        make_data(config.name),
        SETTINGS,
        seed=0,
        checkpoint_dir=folder,
        identity=IDENTITY,
    )
    return result.resumed_from


@pytest.mark.parametrize("config", FIRST_OF_EACH.values(), ids=FIRST_OF_EACH.keys())
def test_every_field_of_the_identity_counts(config, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run(config, tmp_path)
    (tmp_path / "epoch-00000002.json").unlink()
    path = tmp_path / "epoch-00000001.json"
    content = path.read_bytes()
    identity = json.loads(content)["record"]["identity"]
    fields = set(identity)
    assert {"torch", "seed", "num_nodes", "device", "method", "train.learning_rate", *IDENTITY} <= fields
    assert {f"method.{name}" for name in result_fields(config)} <= fields
    assert any(name.startswith("shape.") for name in fields)
    for number, field in enumerate(identity):
        without = {name: value for name, value in identity.items() if name != field}
        changed = without if number % 2 else identity | {field: "something else"}
        rewrite(path, identity=changed)
        with pytest.raises(CheckpointMismatch) as caught:
            run(config, tmp_path)
        lines = str(caught.value).splitlines()[1:]
        assert len(lines) == 1, "the fields that agree are not listed"
        assert lines[0].startswith(f"  {field}: checkpoint {changed.get(field, '(absent)')}, this run ")
        path.write_bytes(content)
    rewrite(path, identity=identity | {"more": "1"})
    with pytest.raises(CheckpointMismatch, match=r"more: checkpoint 1, this run \(absent\)"):
        run(config, tmp_path)
    path.write_bytes(content)
    assert run(config, tmp_path) == 1


def test_a_checkpoint_of_another_format_is_passed_over(tmp_path: Path) -> None:
    config = FIRST_OF_EACH["dmat_i"]
    run(config, tmp_path)
    rewrite(tmp_path / "epoch-00000002.json", format="gclflow-checkpoint-9")
    assert run(config, tmp_path) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_train_stage_refuses_the_checkpoints_of_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved by hand to where another run looks for its own."""
    import gcl.trainer

    def interrupted(*arguments, **options):  # type: ignore[no-untyped-def]
        asked = iter(range(100))
        options["should_stop"] = lambda: "asked" if next(asked) >= 2 else None
        return gcl_train(*arguments, **options)

    gcl_train = gcl.trainer.train
    with monkeypatch.context() as patch:
        patch.setattr(gcl.trainer, "train", interrupted)
        with pytest.raises(TrainingInterrupted):
            run_direct(tiny("train.checkpoint_every=1"), tmp_path / "store", until="train")
        (left,) = (tmp_path / "store" / ".scratch").iterdir()
        with pytest.raises(TrainingInterrupted):
            run_direct(tiny("method.temperature=0.9"), tmp_path / "store", until="train")
    (other,) = (path for path in left.parent.iterdir() if path != left)
    shutil.rmtree(other)
    shutil.copytree(left, other)
    with pytest.raises(
        CheckpointMismatch, match=r"method\.temperature: checkpoint .*, this run 0\.9"
    ) as caught:
        run_direct(tiny("method.temperature=0.9"), tmp_path / "store", until="train")
    assert exit_code(caught.value) == 5
    assert "method.temperature" in describe(caught.value)
    assert run_direct(tiny(), tmp_path / "store", until="train").ran == ["train"]
