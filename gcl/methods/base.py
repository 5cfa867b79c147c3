"""What a method is: weights, batches, a loss, an embedding. Loop, checkpoints and seeds live elsewhere."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gcl.config import Config as BaseConfig
from gcl.distributed import WHOLE, Share
from gcl.errors import NotDefined
from gcl.graph import Graph
from gcl.graph_collection import GraphCollection
from gcl.hetero_graph import Metapath
from gcl.methods.configs.rows import MethodInputs
from gcl.random import numpy_generator
from gcl.workspace import MEMORY, Workspace

EMBED_ROWS = 8192
"""Rows embedded at a time. Fixed, because a matrix product may round differently for another height."""
MIN_LAST_BATCH = 32
"""A shorter last batch is dropped: its few negatives would weigh as much as a full batch's many."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a method may train on.

    Attributes:
        num_nodes: N >= 1.
        x_NF: float32 smoothed rows, possibly memory-mapped; for methods that read "smoothed".
        graph: the graph; for methods that read "graph".
        y_N: int32 known classes, -1 where unknown, holding training labels alone; None for every method
            that does not declare `uses_labels`.
        workspace: where embeddings of all nodes are put.
        metapaths: which target nodes each metapath joins; for methods that read "metapaths". The graph is
            then that of the target nodes.
        collection: the graphs, each of them one of the N rows; for methods that read the "collection".
    """

    num_nodes: int
    x_NF: np.ndarray | None = None
    graph: Graph | None = None
    y_N: np.ndarray | None = None
    workspace: Workspace = MEMORY
    metapaths: tuple[Metapath, ...] | None = None
    collection: GraphCollection | None = None

    def __post_init__(self) -> None:
        if self.num_nodes < 1:
            raise NotDefined("an empty graph cannot be trained on")
        for what, array in (("x_NF", self.x_NF), ("y_N", self.y_N)):
            if array is not None and len(array) != self.num_nodes:
                raise ValueError(f"{what} has {len(array)} rows for {self.num_nodes} nodes")
        if self.collection is not None and self.collection.num_graphs != self.num_nodes:
            raise ValueError(
                f"the collection has {self.collection.num_graphs} graphs, and num_nodes is {self.num_nodes}: "
                "each graph is one of the rows"
            )

    def batch(self, rows_B: Tensor, *, device: torch.device | str = "cpu") -> "Batch":
        """The data of some nodes, moved to `device`.

        Args:
            rows_B: int64 node ids, on the CPU.
            device: where the method computes.
        """
        rows = rows_B.numpy()
        x_BF = None if self.x_NF is None else np.ascontiguousarray(self.x_NF[rows], np.float32)
        y_B = None if self.y_N is None else self.y_N[rows].astype(np.int64)
        return Batch(
            rows_B=rows_B.to(device),
            x_BF=None if x_BF is None else torch.from_numpy(x_BF).to(device),
            graph=self.graph,
            collection=self.collection,
            y_B=None if y_B is None else torch.from_numpy(y_B).to(device),
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's data, on the device of the method.

    Attributes:
        rows_B: int64 node ids.
        x_BF: float32 their rows; None for methods that read the graph.
        graph: the whole graph, on the host.
        collection: all graphs, on the host; the rows are some of them.
        y_B: int64 their known classes, -1 where unknown; None when labels are not handed over.
        share: which of the rows this process encodes: all, unless several train together.
    """

    rows_B: Tensor
    x_BF: Tensor | None = None
    graph: Graph | None = None
    collection: GraphCollection | None = None
    y_B: Tensor | None = None
    share: Share = WHOLE


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that are moved together, with an optimiser state of their own.

    Attributes:
        name: what `Method.moving_group` calls it.
        parameters: which.
        learning_rate: step size; None for the trainer's. The trainer's schedule applies to both.
        weight_decay: L2 coefficient; None for the trainer's.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    learning_rate: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True, eq=False)
class PairWeights:
    """How a trained method weighs some pairs of nodes as negatives.

    Attributes:
        similarity_AM: float32 similarity of anchor and candidate, as the loss sees them: a cosine, or a
            mixture of cosines.
        weight_AM: float32 weight of the pair, 1 for uniform weights.
        bound: largest magnitude a similarity can have; above 1 where the mixture's share is learned freely.
    """

    similarity_AM: np.ndarray
    weight_AM: np.ndarray
    bound: float = 1.0


@dataclass(frozen=True)
class TrainingSize:
    """What memory depends on: N nodes, E directed edges, F feature columns, B nodes a batch, metapaths."""

    num_nodes: int
    num_edges: int
    num_features: int
    batch_size: int
    metapath_entries: tuple[int, ...] = ()


class Method(nn.Module, ABC):
    """A contrastive method: all its state is in `state_dict()`, all its randomness in the seeds it is given.

    Buffers that only training needs are registered on `training_state`: checkpoints keep them, the
    model file does not.

    Class attributes:
        name: key in `METHODS`.
        Config: its configuration class.
        inputs: "smoothed" rows, the "graph", or both.
        uses_labels: whether it is handed `TrainingData.y_N`.
        min_num_nodes: least N it is defined for; fewer raise NotDefined.
        needs_edges: whether a graph without edges is refused.
        is_transductive: whether it has weights of single nodes: it is built with `num_nodes`, and embeds
            no others.
    """

    name: ClassVar[str]
    Config: ClassVar[type[BaseConfig]]
    inputs: ClassVar[MethodInputs]
    uses_labels: ClassVar[bool] = False
    min_num_nodes: ClassVar[int] = 2
    needs_edges: ClassVar[bool] = False
    is_transductive: ClassVar[bool] = False
    config: BaseConfig

    @abstractmethod
    def __init__(self, config: BaseConfig, *, num_features: int, num_classes: int | None, seed: int) -> None:
        """Build the layers, with weights from ``torch_generator(seed, "init")`` alone.

        Args:
            config: an instance of `Config`.
            num_features: F, width of the rows.
            num_classes: K, or None when the method does not use labels.
            seed: run seed.
        """
        super().__init__()
        self.training_state = nn.Module()

    @classmethod
    def memory_estimate(cls, config: BaseConfig, size: TrainingSize) -> dict[str, int]:
        """About how many bytes of memory training takes at its peak, by what takes them.

        What a workspace holds is not counted. An order of magnitude, to refuse what is hopeless.

        Args:
            config: an instance of `Config`.
            size: of the data.
        """
        return {}

    @abstractmethod
    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """The scalar to minimise under ``"loss"``, and scalars worth watching under other names.

        Args:
            batch: one step's data.
            epoch: counter from 0.
            step: counter from 0 within the epoch.
            seed: run seed; every draw derives from (seed, purpose, epoch, step).
        """

    def losses(self, batch: Batch, *, epoch: int, step: int, seed: int) -> Iterator[dict[str, Tensor]]:
        """The parts of a step's loss, one after the other; their sum is minimised.

        What the backward pass of a part needs is freed before the next part is computed, so parts that
        share no work take the memory of the largest alone.

        Args:
            batch: one step's data.
            epoch: counter from 0.
            step: counter from 0 within the epoch.
            seed: run seed.

        Yields:
            Terms as of `training_loss`. ``"loss"`` adds up over the parts, what else is watched is averaged.
        """
        yield self.training_loss(batch, epoch=epoch, step=step, seed=seed)

    @abstractmethod
    def embed(self, data: TrainingData, *, batch_size: int = EMBED_ROWS) -> np.ndarray:
        """float32 [N, D] embeddings of all nodes, in evaluation mode and without gradients.

        Args:
            data: what the method reads.
            batch_size: rows at a time.
        """

    @abstractmethod
    def embed_view(
        self, data: TrainingData, *, view: int, seed: int, batch_size: int = EMBED_ROWS
    ) -> np.ndarray:
        """float32 [N, D] embeddings of randomly augmented inputs; their spread measures uncertainty.

        Args:
            data: what the method reads.
            view: counter of the augmentation; another number, another draw.
            seed: run seed.
            batch_size: rows at a time; part of the draw.
        """

    def epoch_batches(
        self, data: TrainingData, *, epoch: int, seed: int, batch_size: int
    ) -> Iterator[Tensor]:
        """The batches of an epoch as int64 node ids: all nodes, shuffled.

        Args:
            data: what is trained on.
            epoch: counter from 0.
            seed: run seed.
            batch_size: nodes in a batch.
        """
        return shuffled_batches(np.arange(data.num_nodes), epoch=epoch, seed=seed, batch_size=batch_size)

    def parameter_groups(self) -> list[ParameterGroup]:
        """What the optimiser moves; a parameter in no group is the method's own affair."""
        return [ParameterGroup("all", list(self.parameters()))]

    def moving_group(self, *, epoch: int, step: int) -> str | None:
        """Name of the group that this step moves, the others being constants in it; None for all.

        Args:
            epoch: counter from 0.
            step: counter from 0 within the epoch.
        """
        return None

    def after_backward(self, *, epoch: int, step: int) -> None:  # noqa: B027  optional
        """Change gradients before the optimiser sees them.

        Args:
            epoch: counter from 0.
            step: counter from 0 within the epoch.
        """

    def after_epoch(self, data: TrainingData, *, epoch: int, seed: int) -> None:  # noqa: B027  optional
        """Refresh what depends on the weights, between epochs; a checkpoint comes after it.

        Args:
            data: what is trained on.
            epoch: the epoch that ended, counted from 0.
            seed: run seed.
        """

    def negative_weights(
        self, data: TrainingData, anchors_A: np.ndarray, candidates_AM: np.ndarray, *, seed: int
    ) -> PairWeights | None:
        """The weights that the trained method gives pairs as negatives; None where all weigh the same.

        Args:
            data: what was trained on.
            anchors_A: int64 nodes.
            candidates_AM: int64 nodes, M for each anchor, none of them the anchor.
            seed: run seed.
        """
        return None

    def notes(self, data: TrainingData) -> list[str]:
        """What a reader of the result must know, such as that negatives were sampled.

        Args:
            data: what was trained on.
        """
        return []

    def check(self, data: TrainingData) -> None:
        """Refuse data the method is not defined for, before any work.

        Raises:
            NotDefined: too few nodes, or no edges where the method needs them.
            ValueError: an input it declares is missing, or labels it does not declare are present.
        """
        if data.num_nodes < self.min_num_nodes:
            rows = "graphs" if "collection" in self.inputs else "nodes"
            raise NotDefined(f"{self.name} needs at least {self.min_num_nodes} {rows}, not {data.num_nodes}")
        if "smoothed" in self.inputs and data.x_NF is None:
            raise ValueError(f"{self.name} reads smoothed rows, and none were given")
        if "graph" in self.inputs and data.graph is None:
            raise ValueError(f"{self.name} reads the graph, and none was given")
        if "metapaths" in self.inputs and not data.metapaths:
            raise NotDefined(
                f"{self.name} reads metapaths; this graph has nodes of one type and none of them"
            )
        if "collection" in self.inputs and data.collection is None:
            raise NotDefined(f"{self.name} reads a collection of graphs, and these data are one graph")
        if self.needs_edges and (data.graph is None or data.graph.num_edges == 0):
            raise NotDefined(f"{self.name} needs a graph with edges")
        if self.uses_labels and data.y_N is None:
            raise ValueError(f"{self.name} needs training labels, and none were given")
        if not self.uses_labels and data.y_N is not None:
            raise ValueError(f"{self.name} must not see labels: leave y_N out")

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device


def shuffled_batches(
    rows: np.ndarray,
    *,
    epoch: int,
    seed: int,
    batch_size: int,
    purpose: str = "shuffle",
    least: int = MIN_LAST_BATCH,
) -> Iterator[Tensor]:
    """Shuffle `rows` by (seed, purpose, epoch) and cut them; a short last batch is dropped, unless alone.

    Args:
        rows: int64 node ids.
        epoch: counter from 0.
        seed: run seed.
        batch_size: nodes in a batch.
        purpose: what the shuffle is for; another purpose, another order.
        least: nodes that a last batch must have.
    """
    order = numpy_generator(seed, purpose, epoch).permutation(rows)
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        if first == 0 or len(batch) >= min(least, batch_size):
            yield torch.from_numpy(batch)


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: batch norm uses its running moments, dropout is off."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
