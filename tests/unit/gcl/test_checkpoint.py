"""Checkpoints: exact, atomic, verified, two kept, and never of something else."""

import errno
import fcntl
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from gcl.checkpoint import (
    capture_state,
    drop_checkpoints,
    load_checkpoint,
    load_weights,
    restore_state,
    save_checkpoint,
    save_weights,
)
from gcl.errors import CheckpointMismatch, SourceUnreadable
from gcl.locked_files import create_locked, taken

IDENTITY = {"method": "toy", "seed": "0"}


def toy(seed=0, width=3):
    torch.manual_seed(seed)
    method = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))
    return method, torch.optim.Adam(method.parameters(), lr=0.1)


def step(method, optimizer):
    optimizer.zero_grad()
    method(torch.ones(5, 4) + torch.arange(5)[:, None]).pow(2).sum().backward()
    optimizer.step()


def trained(epochs=2):
    method, optimizer = toy()
    for _ in range(epochs):
        step(method, optimizer)
    history = [{"epoch": float(e + 1), "loss": 0.1 * (e + 1) / 3} for e in range(epochs)]
    return method, optimizer, capture_state(method, optimizer, epoch=epochs, history=history)


def tree(folder):
    return sorted(path.name for path in folder.iterdir())


def test_state_survives_bit_for_bit_and_training_goes_on_the_same(tmp_path):
    method, optimizer, state = trained()
    save_checkpoint(tmp_path, state, IDENTITY)
    found = load_checkpoint(tmp_path, IDENTITY)
    assert found.epoch == 2
    assert [t["loss"].hex() for t in found.history] == [t["loss"].hex() for t in state.history]
    other, other_optimizer = toy(seed=1)
    restore_state(found, other, other_optimizer)
    for _ in range(3):
        step(method, optimizer)
        step(other, other_optimizer)
    for name, tensor in method.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_captured_state_is_a_copy():
    method, optimizer, state = trained()
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    step(method, optimizer)
    assert all(torch.equal(before[name], tensor) for name, tensor in state.tensors.items())


def test_optimizer_state_is_part_of_the_state():
    _, _, state = trained()
    names = {name.split(".", 2)[2] for name in state.tensors if name.startswith("optimizer.")}
    assert names == {"step", "exp_avg", "exp_avg_sq"}
    assert "method.1.num_batches_tracked" in state.tensors


def test_last_two_are_kept(tmp_path):
    _, _, state = trained()
    for epoch in (1, 2, 9, 10):
        save_checkpoint(tmp_path, type(state)(epoch, state.tensors, state.history), IDENTITY)
    assert tree(tmp_path) == [
        "epoch-00000009.json",
        "epoch-00000009.safetensors",
        "epoch-00000010.json",
        "epoch-00000010.safetensors",
    ]


def test_later_checkpoint_that_was_passed_over_goes_with_the_next_one(tmp_path):
    _, _, state = trained()
    for epoch in (4, 30, 5):
        save_checkpoint(tmp_path, type(state)(epoch, state.tensors, state.history), IDENTITY)
    assert {name.split(".")[0] for name in tree(tmp_path)} == {"epoch-00000004", "epoch-00000005"}


def test_missing_or_empty_folder_has_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path, IDENTITY) is None
    assert load_checkpoint(tmp_path / "absent", IDENTITY) is None


def test_history_is_kept_as_float_hex(tmp_path):
    _, _, state = trained()
    path = save_checkpoint(tmp_path, state, IDENTITY)
    assert json.loads(path.read_text())["record"]["history"][0]["loss"] == state.history[0]["loss"].hex()


def test_mismatch_lists_every_field_that_differs(tmp_path):
    save_checkpoint(tmp_path, trained()[2], IDENTITY | {"graph": "aa"})
    with pytest.raises(CheckpointMismatch) as caught:
        load_checkpoint(tmp_path, {"method": "toy", "seed": "1", "device": "cpu"})
    text = str(caught.value)
    assert "seed: checkpoint 0, this run 1" in text
    assert "graph: checkpoint aa, this run (absent)" in text
    assert "device: checkpoint (absent), this run cpu" in text
    assert "method" not in text.split("\n", 1)[1]


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "empty", "delete", "garbage"])
def test_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, caplog, suffix, damage):
    _, _, state = trained()
    for epoch in (1, 2):
        save_checkpoint(tmp_path, type(state)(epoch, state.tensors, state.history), IDENTITY)
    path = tmp_path / f"epoch-00000002{suffix}"
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes({"truncate": content[:-7], "empty": b"", "garbage": b"\x80\x04" * 50}[damage])
    assert load_checkpoint(tmp_path, IDENTITY).epoch == 1
    assert (suffix, damage) == (".json", "delete") or "is damaged and passed over" in caplog.text


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_every_flipped_bit_is_noticed(tmp_path, suffix):
    path = save_checkpoint(tmp_path, trained()[2], IDENTITY).with_suffix(suffix)
    content = path.read_bytes()
    for position in range(0, len(content), max(1, len(content) // 300)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        assert load_checkpoint(tmp_path, IDENTITY) is None, position
    path.write_bytes(content)
    assert load_checkpoint(tmp_path, IDENTITY).epoch == 2


def test_files_are_synced_before_they_are_renamed_and_the_record_comes_last(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: calls.append(("fsync", os.readlink(f"/proc/self/fd/{fd}"))) or fsync(fd)
    )
    monkeypatch.setattr(
        Path, "replace", lambda self, to: calls.append(("rename", str(to))) or replace(self, to)
    )
    save_checkpoint(tmp_path, trained()[2], IDENTITY)
    kinds = [(kind, Path(name).suffix.strip(".") or "folder") for kind, name in calls]
    one_file = [("fsync", "partial"), ("rename", "{}"), ("fsync", "folder")]
    expected = [(k, w.format(s)) for s in ("safetensors", "json") for k, w in one_file]
    assert kinds == expected


@pytest.mark.fault
@pytest.mark.parametrize("call", range(4))
def test_checkpoint_survives_a_full_disk(tmp_path, monkeypatch, call):
    _, _, state = trained()
    save_checkpoint(tmp_path, type(state)(1, state.tensors, state.history), IDENTITY)
    before = tree(tmp_path)
    calls, fsync = iter(range(100)), os.fsync

    def full(descriptor):
        if next(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, state, IDENTITY)
    monkeypatch.undo()
    assert set(before) <= set(tree(tmp_path))
    assert not [name for name in tree(tmp_path) if name.endswith(".partial")]
    # The last sync comes after the rename of the record: the checkpoint is there by then.
    assert load_checkpoint(tmp_path, IDENTITY).epoch == (2 if call == 3 else 1)


def test_left_over_partial_files_are_swept(tmp_path):
    (tmp_path / ".epoch-00000001.json.abc.partial").write_bytes(b"half")
    (tmp_path / "epoch-00000001.safetensors").write_bytes(b"no record")
    save_checkpoint(tmp_path, trained()[2], IDENTITY)
    assert tree(tmp_path) == ["epoch-00000002.json", "epoch-00000002.safetensors"]


def test_a_file_that_another_process_is_writing_is_not_swept(tmp_path):
    partial = tmp_path / f".epoch-00000001.json.{os.getpid()}.abc.partial"  # of another container, where the
    with create_locked(partial):  # pid of this process, 1 as a rule, is that of the writer too
        save_checkpoint(tmp_path, trained()[2], IDENTITY)
        assert partial.exists()
        with taken(partial) as is_left:
            assert not is_left
    save_checkpoint(tmp_path, trained()[2], IDENTITY)
    assert not partial.exists()


def test_a_file_that_is_swept_before_it_is_held_is_made_again(tmp_path, monkeypatch):
    path, flock, swept = tmp_path / "x.partial", fcntl.flock, []

    def flock_late(file, operation):
        if not swept:
            swept.append(path.unlink())
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    with create_locked(path) as file:
        assert os.path.samestat(os.fstat(file.fileno()), path.stat())
    assert swept


def test_without_locks_files_are_written_and_nothing_is_swept(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    left = tmp_path / ".epoch-00000001.json.1.abc.partial"
    left.write_bytes(b"half")
    save_checkpoint(tmp_path, trained()[2], IDENTITY)
    assert load_checkpoint(tmp_path, IDENTITY).epoch == 2 and left.exists()


def test_weights_round_trip_and_equal_weights_give_equal_bytes(tmp_path):
    method, _, _ = trained()
    save_weights(method, tmp_path / "a.safetensors")
    save_weights(method, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    other, _ = toy(seed=3)
    load_weights(other, tmp_path / "a.safetensors")
    for name, tensor in method.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_weights_of_another_shape_are_refused_with_the_tensor(tmp_path):
    save_weights(toy()[0], tmp_path / "a.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"0\.bias: checkpoint float32\[3\], this run float32\[5\]"):
        load_weights(toy(width=5)[0], tmp_path / "a.safetensors")


class _Bomb:
    def __reduce__(self):
        return (Path("bomb-went-off").touch, ())


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 16, pickle.dumps(_Bomb())], ids=len)
def test_file_that_is_not_safetensors_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(SourceUnreadable, match="not readable as safetensors"):
        load_weights(toy()[0], tmp_path / "a.safetensors")
    assert not (tmp_path / "bomb-went-off").exists()


def test_dropped_checkpoints_leave_the_earlier_ones(tmp_path):
    method, optimizer = toy()
    for epoch in (3, 10):
        save_checkpoint(tmp_path, capture_state(method, optimizer, epoch=epoch, history=[]), IDENTITY)
    drop_checkpoints(tmp_path, from_epoch=11)
    assert load_checkpoint(tmp_path, IDENTITY).epoch == 10
    drop_checkpoints(tmp_path, from_epoch=4)
    assert tree(tmp_path) == ["epoch-00000003.json", "epoch-00000003.safetensors"]
    drop_checkpoints(tmp_path, from_epoch=3)
    drop_checkpoints(tmp_path / "missing", from_epoch=1)
    assert tree(tmp_path) == []
