"""Checkpoints of a training run: safetensors and JSON, atomic, verified, the last two kept. No pickle.

A checkpoint is two files, ``epoch-00000012.safetensors`` with every tensor and ``epoch-00000012.json``
with everything else and the tensors' sha256. Each is written under a temporary name, synced and renamed;
the JSON comes last and is the commit. What does not verify is passed over for the one before it.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from gcl.errors import CheckpointMismatch, SourceUnreadable
from gcl.locked_files import taken, write_atomically

logger = logging.getLogger(__name__)

FORMAT = "gclflow-checkpoint-1"
NUM_KEPT = 2
TRAINING_STATE = "training_state"
"""The part of a name that says that only training needs it: in checkpoints, not in the model file."""


@dataclass(frozen=True, eq=False)
class TrainingState:
    """All that an unbroken run would hold after an epoch.

    Attributes:
        epoch: epochs finished.
        tensors: copies, on the CPU, of parameters, buffers and optimizer state, by name.
        history: one mapping of loss terms an epoch.
    """

    epoch: int
    tensors: dict[str, Tensor]
    history: list[dict[str, float]]


def capture_state(
    method: nn.Module, optimizer: torch.optim.Optimizer, *, epoch: int, history: list[dict[str, float]]
) -> TrainingState:
    """Copy the state of a run, so that later steps do not change it.

    Args:
        method: the module in training.
        optimizer: its optimizer; every entry of its state must be a tensor.
        epoch: epochs finished.
        history: loss terms of those epochs.
    """
    tensors = {f"method.{name}": tensor for name, tensor in method.state_dict().items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in entries.items()}
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return TrainingState(epoch, copies, [dict(terms) for terms in history])


def restore_state(state: TrainingState, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a captured state back; names and shapes must match exactly.

    Args:
        state: what `capture_state` or `load_checkpoint` gave.
        method: the module to fill.
        optimizer: its optimizer, whose hyper-parameters stay as they are.
    """
    weights: dict[str, Tensor] = {}
    for name, value in state.tensors.items():
        # What only training needs has the shape that training gave it, and may not exist in a fresh method.
        path, _, buffer = name.removeprefix("method.").rpartition(".")
        if name.startswith("method.") and _is_training_state(name):
            method.get_submodule(path).register_buffer(buffer, value.to(_device_of(method), copy=True))
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in state.tensors.items():
        owner, _, rest = name.partition(".")
        if owner == "method":
            weights[rest] = value
        else:
            index, _, key = rest.partition(".")
            entries.setdefault(int(index), {})[key] = value.clone()
    method.load_state_dict(weights, strict=True)
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})


def _device_of(method: nn.Module) -> torch.device:
    return next((parameter.device for parameter in method.parameters()), torch.device("cpu"))


def save_checkpoint(folder: Path, state: TrainingState, identity: Mapping[str, str]) -> Path:
    """Write a checkpoint atomically and drop all but the last two.

    Args:
        folder: the run's checkpoint folder, made when missing.
        state: what to keep.
        identity: what the checkpoint belongs to, see `load_checkpoint`.

    Returns:
        The committed JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"epoch-{state.epoch:08d}"
    tensor_bytes = tensors_to_bytes(state.tensors)
    record = {
        "format": FORMAT,
        "epoch": state.epoch,
        "identity": dict(identity),
        "history": [{term: value.hex() for term, value in terms.items()} for terms in state.history],
        "tensors_sha256": hashlib.sha256(tensor_bytes).hexdigest(),
    }
    write_atomically(folder / f"{stem}.safetensors", tensor_bytes)
    committed = folder / f"{stem}.json"
    write_atomically(committed, _sealed(record))
    _prune(folder, stem)
    return committed


def load_checkpoint(folder: Path, identity: Mapping[str, str]) -> TrainingState | None:
    """The newest checkpoint that verifies, or None when there is none.

    What a killed writer left behind goes, and so do later checkpoints that did not verify.

    Args:
        folder: the run's checkpoint folder, which may be missing.
        identity: what the run is: method, configuration, data, versions.

    Raises:
        CheckpointMismatch: it belongs to another run; the message lists the fields that differ.
    """
    for path in sorted(folder.glob("epoch-*.json"), reverse=True):
        try:
            record, tensors = _read_verified(path)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            logger.warning("checkpoint %s is damaged and passed over: %s", path.name, error)
            continue
        _check_identity(path, record["identity"], identity)
        _prune(folder, path.stem)
        history = [
            {term: float.fromhex(value) for term, value in terms.items()} for terms in record["history"]
        ]
        return TrainingState(int(record["epoch"]), tensors, history)
    return None


def save_weights(method: nn.Module, path: Path) -> None:
    """Write the parameters and buffers that embedding needs to one safetensors file, atomically.

    Args:
        method: trained or not.
        path: the file; equal weights give equal bytes.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in _model_tensors(method).items()}
    write_atomically(path, tensors_to_bytes(tensors))


def load_weights(method: nn.Module, path: Path) -> None:
    """Fill a method from `save_weights`; names, shapes and types must match exactly.

    Args:
        method: built from the same configuration.
        path: the file.

    Raises:
        SourceUnreadable: not a safetensors file, or a damaged one.
        CheckpointMismatch: tensors of another method or configuration.
    """
    try:
        tensors = tensors_from_bytes(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise SourceUnreadable(f"{path}: not readable as safetensors: {error}") from error
    expected = {name: _signature(value) for name, value in _model_tensors(method).items()}
    _check_identity(path, {name: _signature(value) for name, value in tensors.items()}, expected)
    method.load_state_dict(tensors, strict=False)


def _model_tensors(method: nn.Module) -> dict[str, Tensor]:
    state = method.state_dict()
    return {name: value for name, value in state.items() if not _is_training_state(name)}


def _is_training_state(name: str) -> bool:
    return TRAINING_STATE in name.split(".")


def _read_verified(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    sealed = json.loads(path.read_bytes())
    record = sealed.get("record") if isinstance(sealed, dict) else None
    if not isinstance(record, dict) or _sealed(record) != path.read_bytes():
        raise ValueError("its record does not match its checksum")
    if record["format"] != FORMAT:
        raise ValueError(f"its format is {record['format']}, not {FORMAT}")
    tensor_bytes = path.with_suffix(".safetensors").read_bytes()
    if hashlib.sha256(tensor_bytes).hexdigest() != record["tensors_sha256"]:
        raise ValueError("its tensors do not match their checksum")
    return record, tensors_from_bytes(tensor_bytes)


def _sealed(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record)  # in the order given: the terms of the history are ordered
    seal = hashlib.sha256(text.encode()).hexdigest()
    return (json.dumps({"record": record, "sha256": seal}, indent=1) + "\n").encode()


def _check_identity(path: Path, found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    differing = [key for key in sorted(found.keys() | expected.keys()) if found.get(key) != expected.get(key)]
    if differing:
        lines = [
            f"  {key}: checkpoint {found.get(key, '(absent)')}, this run {expected.get(key, '(absent)')}"
            for key in differing
        ]
        raise CheckpointMismatch(f"{path} belongs to something else:\n" + "\n".join(lines))


def _signature(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


def drop_checkpoints(folder: Path, *, from_epoch: int) -> None:
    """Forget the checkpoints of an epoch and of later ones, so that a run trains that epoch again.

    Args:
        folder: the run's checkpoint folder, which may be missing.
        from_epoch: epochs finished.
    """
    for suffix in ("json", "safetensors"):  # the record first: it must never lack its tensors
        for path in folder.glob(f"epoch-*.{suffix}"):
            if path.stem >= f"epoch-{from_epoch:08d}":
                path.unlink(missing_ok=True)


def _prune(folder: Path, newest: str) -> None:
    """Keep the last two checkpoints up to `newest`, and nothing that a killed writer left behind.

    A later one than `newest` was passed over as damaged, or the run would have gone on from it.
    """
    stems = sorted(path.stem for path in folder.glob("epoch-*.json"))
    kept = [stem for stem in stems if stem <= newest][-NUM_KEPT:]
    for suffix in ("json", "safetensors"):  # the record first: it must never lack its tensors
        for path in folder.glob(f"epoch-*.{suffix}"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)
    for partial in folder.glob(".epoch-*.partial"):
        with taken(partial) as is_left:  # another process may be training the same at this moment
            if is_left:
                partial.unlink(missing_ok=True)
