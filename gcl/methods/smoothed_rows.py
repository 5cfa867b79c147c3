"""What the methods on smoothed rows share: encoder, projector, views, embedding. The losses are theirs."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from gcl.augment import augment_rows
from gcl.config import Config as BaseConfig
from gcl.distributed import WHOLE, Share
from gcl.encoders import build_encoder, build_projector
from gcl.losses.grouped import cosine_rows
from gcl.methods.base import EMBED_ROWS, Batch, Method, TrainingData, TrainingSize, evaluation
from gcl.methods.configs.dmat import DmatIConfig, DmtConfig
from gcl.random import torch_generator

_COPIES, _SCORES = 4, 3  # of rows and scores: values, gradients, what is kept between


class SmoothedRowsMethod(Method):
    """A method whose encoder maps each smoothed row by itself; the graph is never needed again.

    Memory on the device is O(B), whatever N is.
    """

    inputs = "smoothed"
    config: DmatIConfig | DmtConfig

    def __init__(
        self, config: DmatIConfig | DmtConfig, *, num_features: int, num_classes: int | None, seed: int
    ) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        if num_features < 1:
            raise ValueError(f"{self.name} needs at least one feature column")
        generator = torch_generator(seed, "init")
        self.config = config
        self.num_features, self.num_classes = num_features, num_classes
        self.encoder = build_encoder(config, num_features, generator)
        self.projector: nn.Module = nn.Identity()
        if config.projector == "mlp":
            self.projector = build_projector(config.embedding_size, generator)

    @classmethod
    def memory_estimate(cls, config: BaseConfig, size: TrainingSize) -> dict[str, int]:
        """A batch with its views and their scores; nothing of it grows with the graph but the shuffle."""
        assert isinstance(config, DmatIConfig | DmtConfig)  # noqa: S101  what `Config` is here
        rows = config.num_views * min(size.batch_size, size.num_nodes)
        width = size.num_features + config.hidden_size + 2 * config.embedding_size
        return {
            "a batch": 4 * (_COPIES * rows * width + _SCORES * rows**2),
            "the order of the nodes": 16 * size.num_nodes,
            "weights": 16 * size.num_features * max(config.hidden_size, config.embedding_size),
        }

    def project_views(
        self, x_BF: Tensor, *, epoch: int, step: int, seed: int, share: Share = WHOLE
    ) -> Tensor:
        """Projections [V, B, D] of V augmented views, each through the encoder by itself.

        One view is the rows as they are: augmentation is what makes views of a node differ.
        Views are drawn of the whole batch, so they do not depend on how many processes encode it.

        Args:
            x_BF: float32, smoothed rows.
            epoch: counter from 0.
            step: counter from 0 within the epoch.
            seed: run seed.
            share: which of the rows this process encodes.
        """
        views = []
        strengths = self.config.strengths() if self.config.num_views > 1 else {}
        for view in range(self.config.num_views):
            drop = self._generator(seed, "dropout", epoch, step, view)
            draws = self._generator(seed, "augment", epoch, step, view)
            x_view_BF = augment_rows(x_BF, strengths, draws)
            views.append(self.projector(self.encoder(x_view_BF[share.rows], drop)))
        return share.gather(torch.stack(views))

    def embed(self, data: TrainingData, *, batch_size: int = EMBED_ROWS) -> np.ndarray:
        """float32 [N, D] embeddings of the unaugmented rows, without the projector."""
        return self._embed_blocks(data, batch_size, lambda x_BF, _block: self.encoder(x_BF))

    def embed_view(
        self, data: TrainingData, *, view: int, seed: int, batch_size: int = EMBED_ROWS
    ) -> np.ndarray:
        """float32 [N, D] embeddings of one view, augmentation and dropout drawn as in training.

        Batch norm uses its running moments, so that a node's view does not depend on its neighbours in
        the block.
        """

        def encode(x_BF: Tensor, block: int) -> Tensor:
            draws = self._generator(seed, "embed_view", view, block)
            drop = self._generator(seed, "embed_view_dropout", view, block)
            z_BD: Tensor = self.encoder(augment_rows(x_BF, self.config.strengths(), draws), drop)
            return z_BD

        return self._embed_blocks(data, batch_size, encode)

    def check(self, data: TrainingData) -> None:
        """Refuse rows of another width than the encoder's, beside what every method refuses."""
        super().check(data)
        num_features = 0 if data.x_NF is None else data.x_NF.shape[1]
        if num_features != self.num_features:
            raise ValueError(f"{self.name} was built for {self.num_features} columns, not {num_features}")

    def _embed_blocks(
        self, data: TrainingData, batch_size: int, encode: Callable[[Tensor, int], Tensor]
    ) -> np.ndarray:
        z_ND = data.workspace.empty((data.num_nodes, self.config.embedding_size))
        with evaluation(self), torch.no_grad():
            for block, first in enumerate(range(0, data.num_nodes, batch_size)):
                rows_B = torch.arange(first, min(first + batch_size, data.num_nodes))
                z_BD = encode(rows_of(data.batch(rows_B, device=self.device)), block)
                z_BD = cosine_rows(z_BD) if self.config.output == "l2" else z_BD
                z_ND[first : first + batch_size] = z_BD.cpu().numpy()
        return z_ND

    def _generator(self, seed: int, purpose: str, *counters: int) -> torch.Generator:
        return torch_generator(seed, purpose, *counters, device=str(self.device))


def rows_of(batch: Batch) -> Tensor:
    """The smoothed rows of a batch, float32 [B, F].

    Raises:
        ValueError: the batch has none.
    """
    if batch.x_BF is None:
        raise ValueError("the method reads smoothed rows, and the batch has none")
    return batch.x_BF
