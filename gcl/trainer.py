"""The training loop: one for every method. It reads top to bottom; all state it keeps is in a checkpoint."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from gcl.checkpoint import TrainingState, capture_state, load_checkpoint, restore_state, save_checkpoint
from gcl.config import result_fields
from gcl.distributed import ALONE, Processes
from gcl.errors import NonFiniteLoss, TrainingInterrupted, UnsuitableSetting
from gcl.methods.base import Method, ParameterGroup, TrainingData
from gcl.methods.configs.unused import told_before
from gcl.trainer_config import TrainConfig, check_processes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch.

    Attributes:
        epoch: epochs finished, from 1.
        num_epochs: how many there will be.
        terms: mean of each loss term over the steps.
        learning_rate: step size used.
        seconds: wall time of the epoch; differs from run to run.
    """

    epoch: int
    num_epochs: int
    terms: Mapping[str, float]
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """How a training went.

    Attributes:
        history: for each epoch ``"epoch"`` (from 1) and every loss term; the same on every run.
        resumed_from: epochs that a checkpoint had finished; 0 for a fresh run.
        epoch_seconds: wall time of the epochs of this call; differs from run to run.
    """

    history: list[dict[str, float]]
    resumed_from: int = 0
    epoch_seconds: list[float] = field(default_factory=list)


def train(
    method: Method,
    data: TrainingData,
    config: TrainConfig,
    *,
    seed: int,
    device: str = "cpu",
    checkpoint_dir: Path | None = None,
    identity: Mapping[str, str] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    should_stop: Callable[[], str | None] | None = None,
    processes: Processes = ALONE,
) -> TrainingResult:
    """Train `method` in place, resuming from the newest checkpoint of the same run if there is one.

    A resumed run gives the same losses and weights, bit for bit, as an unbroken one on the same kind of
    machine, library versions and number of threads.

    Args:
        method: untrained, built with the same `seed`.
        data: what the method declares it reads, and nothing more.
        config: optimisation settings.
        seed: run seed; shuffles, views and dropout derive from it.
        device: torch device that computes; rows go there a batch at a time.
        checkpoint_dir: where checkpoints are kept; None for none.
        identity: what else a checkpoint belongs to, such as the digest of the data; method, settings,
            seed, sizes, device and torch version are always part of it.
        on_epoch: called after each epoch, before its checkpoint: a checkpoint on disk says that the call for
            its epoch has returned. A run that was killed may call it again for epochs after the checkpoint.
        should_stop: asked before each step; a reason stops the run.
        processes: those that train together, all with the same arguments; `gcl.torchrun` starts them. The
            first one writes the checkpoints, and what it is told stops all.

    Raises:
        UnsuitableSetting: `config.num_processes` are not there, or the method is not for so many.
        NotDefined: data the method is not defined for.
        NonFiniteLoss: a loss term or gradient is NaN or infinite; no step was taken with it.
        TrainingInterrupted: stopped by `should_stop` or the deadline, resumable from the last finished epoch.
        CheckpointMismatch: the folder's checkpoint belongs to another run.
    """
    _check_processes(method, config, processes)
    method.check(data)
    _warn(method, config)
    processes.prepare(method.to(device))
    groups = method.parameter_groups()
    optimizer = _optimizer(groups, config)
    keeper = _Keeper(
        checkpoint_dir,
        _identity(method, data, config, seed, device, identity or {}),
        writes=processes.is_first,
    )
    stop = processes.first_decides(_stop_reason(should_stop, config.deadline_seconds))
    can_stop = should_stop is not None or config.deadline_seconds is not None
    history: list[dict[str, float]] = []
    if (state := keeper.load()) is not None:
        restore_state(state, method, optimizer)
        history = state.history
    processes.wait()  # until all have read it: the first will write others
    result = TrainingResult(history, resumed_from=len(history))

    with _deterministic(device):
        for epoch in range(len(history), config.epochs):
            started = time.monotonic()
            learning_rate = learning_rate_at(epoch, config)
            for group, settings in zip(groups, optimizer.param_groups, strict=True):
                settings["lr"] = learning_rate_at(epoch, config, group.learning_rate)
            method.train()
            totals: dict[str, list[float]] = {}
            finished: TrainingState | None = None
            batches = method.epoch_batches(data, epoch=epoch, seed=seed, batch_size=config.batch_size)
            for step, (rows_B, is_last) in enumerate(_with_last_marked(batches)):
                if reason := stop():
                    keeper.save(finished if step else keeper.capture(method, optimizer, history))
                    raise TrainingInterrupted(f"{reason}; {epoch} of {config.epochs} epochs are finished")
                if can_stop and step == 0 and not is_last:  # a stop between steps goes back to here
                    finished = keeper.capture(method, optimizer, history)
                _hold_still(groups, method.moving_group(epoch=epoch, step=step))
                batch = processes.share(data.batch(rows_B, device=device))
                optimizer.zero_grad(set_to_none=True)
                losses = method.losses(batch, epoch=epoch, step=step, seed=seed)
                for name, value in _descend(losses, _precision(device, config), epoch).items():
                    totals.setdefault(name, []).append(value)
                processes.add_gradients(method)
                method.after_backward(epoch=epoch, step=step)
                _check_gradients(method, epoch)
                optimizer.step()
            _hold_still(groups, None)
            method.after_epoch(data, epoch=epoch, seed=seed)

            means = {name: sum(values) / len(values) for name, values in totals.items()}
            history.append({"epoch": float(epoch + 1), **means})
            result.epoch_seconds.append(time.monotonic() - started)
            if on_epoch is not None:  # before the checkpoint, which makes a resumed run skip this epoch
                seconds = result.epoch_seconds[-1]
                on_epoch(EpochReport(epoch + 1, config.epochs, means, learning_rate, seconds))
            if (epoch + 1) % config.checkpoint_every == 0 or epoch + 1 == config.epochs:
                keeper.save(keeper.capture(method, optimizer, history))
    return result


def take_up(
    method: Method,
    data: TrainingData,
    config: TrainConfig,
    *,
    seed: int,
    device: str,
    checkpoint_dir: Path,
    identity: Mapping[str, str],
    epoch_seconds: list[float],
) -> TrainingResult:
    """Give `method` the weights of a training that others have finished, from its last checkpoint.

    Arguments are those of `train`.

    Raises:
        CheckpointMismatch: the folder's checkpoint belongs to another run.
        FileNotFoundError: it has none of the last epoch.
    """
    keeper = _Keeper(checkpoint_dir, _identity(method, data, config, seed, device, identity))
    state = keeper.load()
    if state is None or state.epoch < config.epochs:
        raise FileNotFoundError(
            f"{checkpoint_dir}: the checkpoint of epoch {config.epochs} is gone; run again"
        )
    restore_state(state, method, _optimizer(method.parameter_groups(), config))
    resumed_from = config.epochs - len(epoch_seconds)
    return TrainingResult(state.history, resumed_from=resumed_from, epoch_seconds=epoch_seconds)


def _warn(method: Method, config: TrainConfig) -> None:
    """Of settings that will play no part."""
    for told in told_before(method.config, config.epochs):
        logger.warning(told)


def _check_processes(method: Method, config: TrainConfig, processes: Processes) -> None:
    if config.num_processes != processes.count:
        raise UnsuitableSetting(
            f"train.num_processes={config.num_processes}, and {processes.count} are there: the pipeline's "
            "stage train and gcl.torchrun.train_in_processes start them; set it to 1 elsewhere"
        )
    if processes.count > 1:
        check_processes(method.config)


def _descend(losses: Iterator[dict[str, Tensor]], precision: torch.autocast, epoch: int) -> dict[str, float]:
    """Add up the gradients of the parts of a loss; each part's graph is gone before the next is made.

    Returns:
        The loss summed over the parts, and the other terms' means.
    """
    found: list[dict[str, float]] = []
    while True:
        with precision:
            terms = next(losses, None)
        if terms is None:
            break
        found.append(_finite_values(terms, epoch))
        torch.autograd.backward(terms["loss"])
        del terms  # or it would live on while the next part is computed
    return {
        name: sum(part[name] for part in found) / (1 if name == "loss" else len(found)) for name in found[0]
    }


def _with_last_marked(batches: Iterator[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Each batch, and whether it is the last: known by looking one ahead."""
    ahead = next(batches, None)
    while ahead is not None:
        current, ahead = ahead, next(batches, None)
        yield current, ahead is None


def learning_rate_at(epoch: int, config: TrainConfig, full: float | None = None) -> float:
    """Step size of an epoch, counted from 0: a pure function, so a resumed run needs no scheduler state.

    Args:
        epoch: counter from 0.
        config: learning rate, schedule and number of epochs.
        full: learning rate the schedule starts from; None for that of `config`.
    """
    full = config.learning_rate if full is None else full
    if config.schedule == "constant":
        return full
    return full * 0.5 * (1.0 + math.cos(math.pi * epoch / config.epochs))


def _optimizer(groups: list[ParameterGroup], config: TrainConfig) -> torch.optim.Optimizer:
    """One Adam for all groups, as independent as one each.

    It keeps its moments by parameter and passes over parameters without a gradient.
    """
    return torch.optim.Adam(
        [
            {
                "params": list(group.parameters),
                "weight_decay": config.weight_decay if group.weight_decay is None else group.weight_decay,
            }
            for group in groups
        ],
        lr=config.learning_rate,
    )


def _hold_still(groups: list[ParameterGroup], moving: str | None) -> None:
    """Make constants of the parameters that the step does not move; None moves all."""
    if len(groups) == 1:
        return
    for group in groups:
        for parameter in group.parameters:
            parameter.requires_grad_(moving in (None, group.name))


class _Keeper:
    """Saves and finds checkpoints; does nothing without a folder, saves none where another process does."""

    def __init__(self, folder: Path | None, identity: Mapping[str, str], *, writes: bool = True) -> None:
        self.folder, self.identity, self.writes = folder, identity, writes
        self.saved_epoch = 0

    def load(self) -> TrainingState | None:
        if self.folder is None:
            return None
        state = load_checkpoint(self.folder, self.identity)
        if state is not None:
            self.saved_epoch = state.epoch
            logger.info("resuming after epoch %d", state.epoch)
        return state

    def capture(
        self, method: Method, optimizer: torch.optim.Optimizer, history: list[dict[str, float]]
    ) -> TrainingState | None:
        """A copy of the state after the last finished epoch, unless it is on disk already."""
        if self.folder is None or not self.writes or len(history) == self.saved_epoch:
            return None
        return capture_state(method, optimizer, epoch=len(history), history=history)

    def save(self, state: TrainingState | None) -> None:
        if self.folder is not None and state is not None:
            save_checkpoint(self.folder, state, self.identity)
            self.saved_epoch = state.epoch


def _identity(
    method: Method,
    data: TrainingData,
    config: TrainConfig,
    seed: int,
    device: str,
    given: Mapping[str, str],
) -> dict[str, str]:
    fields = {f"method.{name}": str(value) for name, value in result_fields(method.config).items()}
    fields |= {f"train.{name}": str(value) for name, value in result_fields(config).items()}
    fields |= {"seed": str(seed), "num_nodes": str(data.num_nodes), "torch": torch.__version__}
    fields |= {"device": torch.device(device).type, "method": method.name}
    for name, parameter in method.named_parameters():
        fields[f"shape.{name}"] = str(tuple(parameter.shape))
    return fields | dict(given)


def _stop_reason(
    should_stop: Callable[[], str | None] | None, deadline_seconds: float | None
) -> Callable[[], str | None]:
    """One question for both ways to stop: the caller's, and the clock's."""
    deadline = math.inf if deadline_seconds is None else time.monotonic() + deadline_seconds

    def reason() -> str | None:
        if time.monotonic() > deadline:
            return f"the deadline of {deadline_seconds} s has passed"
        return should_stop() if should_stop is not None else None

    return reason


def _finite_values(terms: Mapping[str, Tensor], epoch: int) -> dict[str, float]:
    """The terms as numbers, in one transfer from the device; raises NonFiniteLoss if one is not finite."""
    values = torch.stack([term.detach().double() for term in terms.values()]).tolist()
    for name, value in zip(terms, values, strict=True):
        if not math.isfinite(value):
            raise NonFiniteLoss(epoch + 1, name)
    return dict(zip(terms, values, strict=True))


def _check_gradients(method: Method, epoch: int) -> None:
    """Raise NonFiniteLoss if a gradient holds NaN or infinity; one transfer when all is well."""
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    if not gradients:
        return
    largest = torch.stack([torch.linalg.vector_norm(grad, math.inf) for grad in gradients.values()])
    is_finite = torch.isfinite(largest).tolist()
    for name, finite in zip(gradients, is_finite, strict=True):
        if not finite:
            raise NonFiniteLoss(epoch + 1, f"gradient of {name}")


def _precision(device: str, config: TrainConfig) -> torch.autocast:
    is_half = config.precision == "bfloat16"
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=is_half)


@contextmanager
def _deterministic(device: str) -> Iterator[None]:
    """Order-independent kernels on CUDA for the time of the training; the CPU needs nothing."""
    if torch.device(device).type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
