"""One training in several processes: every process takes the same steps, and encodes its share of each batch.

All processes shuffle alike, read the whole batch and draw the views of the whole batch; then each encodes
its rows, projections are gathered with their gradient, each takes the loss of its own anchors against all,
and gradients are added up. So nothing that is drawn or compared depends on the number of processes: losses
and weights are those of one process, but for the order in which sums are taken.

Why the whole batch is drawn by everybody: numbers of a generator follow one another, so a share's would come
only after those before it, and a seed for each share would make the draws depend on how many there are.
What that repeats, reading and masking B x F numbers, is small beside the encoder's products, B x F x D.

Gradients are added up here, in one message after the backward pass. DistributedDataParallel divides by the
number of processes, wants one backward pass a forward pass, and lays its messages out anew after the first
step, so that a run resumed from a checkpoint would add in another order than the unbroken one.

Legend: V views, B nodes of the batch, b of them in this process, D width, H hidden units.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from gcl.methods.base import Batch, Method

_REASON_BYTES = 256


class PeerLost(Exception):
    """Another process of the training has gone or does not answer; its own end says why."""


class Share:
    """Which rows of a batch this process encodes, and how its results join those of the others: here, all."""

    rows: slice = slice(None)

    def gather(self, z_VbD: Tensor) -> Tensor:
        """The projections of the whole batch, float [V, B, D], in its order; gradients find their way back.

        Args:
            z_VbD: float, those of `rows`.
        """
        return z_VbD

    def total(self, part: Tensor) -> Tensor:
        """The sum of the processes' parts of a loss.

        Args:
            part: scalar. Its gradient is that of the part: those of the parameters are added up later.
        """
        return part


WHOLE = Share()
"""The share of a process that is alone."""


class Processes:
    """The processes that train together, seen from one of them; this one is alone."""

    count = 1
    is_first = True

    def prepare(self, method: "Method") -> None:
        """Have the layers that look at a whole batch look beyond this process."""

    def share(self, batch: "Batch") -> "Batch":
        """The batch, with this process's share of it."""
        return batch

    def add_gradients(self, method: "Method") -> None:
        """Give every process the sum of the gradients."""

    def first_decides(self, ask: Callable[[], str | None]) -> Callable[[], str | None]:
        """The answer of the first process, for all: signals and clocks reach them at different steps.

        Args:
            ask: a question with no answer, or with one of a few words.
        """
        return ask

    def wait(self) -> None:
        """Go on when all processes have come here."""


ALONE = Processes()


class ProcessGroup(Processes):
    """The members of torch's default process group, which must exist.

    CPU tensors need a backend too, so on CUDA the group is made with ``cpu:gloo,cuda:nccl``.
    """

    def __init__(self) -> None:
        self.count, self.rank = dist.get_world_size(), dist.get_rank()
        self.is_first = self.rank == 0

    def prepare(self, method: "Method") -> None:
        """Replace batch norms by ones over the whole batch, with the same parameters and moments."""
        for module in list(method.modules()):
            for name, child in list(module.named_children()):
                if type(child) is nn.BatchNorm1d:
                    setattr(module, name, GatheredBatchNorm.of(child))

    def share(self, batch: "Batch") -> "Batch":
        """The batch, with as many of its rows as the next process has, or one more."""
        return replace(batch, share=_PartOfBatch(len(batch.rows_B), self.rank, self.count))

    def add_gradients(self, method: "Method") -> None:
        """Add up the gradients of all processes; all have them for the same parameters."""
        gradients = [parameter.grad for parameter in method.parameters() if parameter.grad is not None]
        if not gradients:
            return
        flat = all_reduced(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def first_decides(self, ask: Callable[[], str | None]) -> Callable[[], str | None]:
        """A question that all processes ask at the same step, and the first one answers."""

        def agreed() -> str | None:
            answer = (ask() or "").encode()[:_REASON_BYTES] if self.is_first else b""
            told = torch.tensor(list(answer.ljust(_REASON_BYTES, b"\0")), dtype=torch.uint8)
            _collectively(dist.broadcast, told, src=0)
            return bytes(told.tolist()).rstrip(b"\0").decode(errors="ignore") or None

        return agreed

    def wait(self) -> None:
        """A barrier."""
        all_reduced(torch.zeros(1))


class _PartOfBatch(Share):
    """Rows first..last-1 of a batch of B, for process `rank` of `count`; none where B is small."""

    def __init__(self, num_rows: int, rank: int, count: int) -> None:
        self.num_rows = num_rows
        self.rows = slice(rank * num_rows // count, (rank + 1) * num_rows // count)

    def gather(self, z_VbD: Tensor) -> Tensor:
        gathered: Tensor = _Gather.apply(z_VbD.float(), self.rows, self.num_rows)  # type: ignore[no-untyped-call]
        return gathered

    def total(self, part: Tensor) -> Tensor:
        summed: Tensor = _Total.apply(part)  # type: ignore[no-untyped-call]
        return summed


class GatheredBatchNorm(nn.BatchNorm1d):
    """Batch norm over the rows of all processes, on any device (torch's own is for CUDA alone)."""

    @classmethod
    def of(cls, norm: nn.BatchNorm1d) -> Self:
        """The same layer, with the same parameters and buffers."""
        found = cls(norm.num_features, norm.eps, norm.momentum, device=norm.weight.device)
        found.weight, found.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(found, name, buffer)
        return found.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Normalise rows, float [b, H], by moments over all B.

        Args:
            input: float, the rows of this process, maybe none.
        """
        if not self.training:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            x_bH = input.float()
            count = all_reduced(torch.full((1,), float(len(x_bH)), device=x_bH.device))
            mean_H = _AddUp.apply(x_bH.sum(0)) / count  # type: ignore[no-untyped-call]
            centred_bH = x_bH - mean_H
            variance_H = _AddUp.apply(centred_bH.square().sum(0)) / count  # type: ignore[no-untyped-call]
            self._remember(mean_H.detach(), variance_H.detach() * count / (count - 1).clamp(min=1))
            scaled_bH = centred_bH * torch.rsqrt(variance_H + self.eps) * self.weight + self.bias
            result: Tensor = scaled_bH.to(input.dtype)
        return result

    @torch.no_grad()
    def _remember(self, mean_H: Tensor, variance_H: Tensor) -> None:
        """Move the running moments as torch does."""
        assert self.running_mean is not None  # noqa: S101  made with them
        assert self.running_var is not None  # noqa: S101
        assert self.num_batches_tracked is not None  # noqa: S101
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_H, self.momentum or 0.0)
        self.running_var.lerp_(variance_H, self.momentum or 0.0)


def all_reduced(values: Tensor) -> Tensor:
    """The sum over all processes, in place of `values`; the same bits in every process.

    Raises:
        PeerLost: not all processes are there any more.
    """
    _collectively(dist.all_reduce, values)
    return values


def _collectively(operation: Callable[..., Any], *values: Any, **options: Any) -> None:
    try:
        operation(*values, **options)
    except RuntimeError as error:
        raise PeerLost(str(error)) from error


class _Gather(torch.autograd.Function):
    """Rows of one process -> rows of all. Backward, what all processes' losses say of this one's rows."""

    @staticmethod
    def forward(ctx: Any, z_VbD: Tensor, rows: slice, num_rows: int) -> Tensor:
        # Everybody adds zeros but the owner: an exact gather that asks for no shares of equal size.
        z_VBD = z_VbD.new_zeros((z_VbD.shape[0], num_rows, z_VbD.shape[2]))
        z_VBD[:, rows] = z_VbD
        ctx.rows = rows
        return all_reduced(z_VBD)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        summed_VBD = all_reduced(gradients[0].contiguous().clone())
        return summed_VBD[:, ctx.rows], None, None


class _AddUp(torch.autograd.Function):
    """A sum over processes that enters the losses of all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return all_reduced(values.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return all_reduced(gradients[0].contiguous().clone())


class _Total(torch.autograd.Function):
    """A sum over processes that each of them differentiates in its own part alone."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        return all_reduced(part.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]
