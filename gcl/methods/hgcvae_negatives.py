"""The bank of negatives of HGCVAE: corrupted embeddings, and draws around the posterior's means.

Legend: N nodes, D embedding, Q negatives of a block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gcl.dropout import Dropout
from gcl.losses.bank import BankBlock
from gcl.losses.grouped import cosine_rows
from gcl.methods.configs.hgcvae import HgcvaeConfig
from gcl.methods.hgcvae_schedules import copies_at
from gcl.random import torch_generator

Kind = Literal["dropout", "vi"]
NUM_WATCHED = 256
"""Anchors, and negatives of each kind, whose cosines are watched."""


@dataclass(frozen=True)
class Bank:
    """The negatives of a step; sources are what is contrasted [N, D] and, for vi, mu and log sigma [N, D].

    Attributes:
        config: kinds, sizes, noise.
        num_nodes: N.
        device: of the sources.
        seed: run seed.
        epoch: counter from 0.
        step: counter from 0 within the epoch.
    """

    config: HgcvaeConfig
    num_nodes: int
    device: torch.device
    seed: int
    epoch: int
    step: int

    @property
    def vi_share(self) -> float:
        """Share of vi negatives."""
        num_dropout, num_vi = copies_at(self.epoch, self.config)
        return num_vi / (num_dropout + num_vi)

    def blocks(self) -> list[BankBlock]:
        """The bank: whole copies of all nodes, or the configured number of negatives out of it."""
        num_dropout, num_vi = copies_at(self.epoch, self.config)
        size = self.config.num_negatives or (4096 if self.config.is_strict else "all")
        if size == "all":
            everyone = torch.arange(self.num_nodes, device=self.device)
            kinds: list[Kind] = ["dropout"] * num_dropout
            kinds += ["vi"] * num_vi
            return [self._block(kind, everyone, number) for number, kind in enumerate(kinds)]
        of_vi = round(size * self.vi_share)
        counts: list[tuple[Kind, int]] = [("dropout", size - of_vi), ("vi", of_vi)]
        return [
            self._block(kind, self._sample(count, number), number)
            for number, (kind, count) in enumerate(counts)
            if count
        ]

    def watched(self, sources: Sequence[Tensor]) -> dict[str, Tensor]:
        """Mean and 95th percentile of cosines of some anchors and negatives, for each kind there can be."""
        with torch.no_grad():
            anchor_AD = cosine_rows(sources[0][self._sample(NUM_WATCHED, 2)])
            found = {}
            kinds: list[Kind] = ["dropout"] * (self.config.negatives != "vi")
            kinds += ["vi"] * (self.config.negatives != "dropout")
            for number, kind in enumerate(kinds, start=3):
                block = self._block(kind, self._sample(NUM_WATCHED, number), -number)
                cosine = (anchor_AD @ cosine_rows(block.draw(sources)).T).flatten()
                found[f"{kind}_negative_similarity"] = cosine.mean()
                found[f"{kind}_negative_similarity_95"] = cosine.quantile(0.95)
        return found

    def _sample(self, count: int, number: int) -> Tensor:
        generator = torch_generator(self.seed, "negative_nodes", self.epoch, self.step, number)
        return torch.randint(self.num_nodes, (count,), generator=generator).to(self.device)

    def _block(self, kind: Kind, source_Q: Tensor, number: int) -> BankBlock:
        counters = (self.epoch, self.step, number)
        draw = self._dropped(source_Q, counters) if kind == "dropout" else self._drawn(source_Q, counters)
        return BankBlock(draw, source_Q if self.config.is_strict else None)

    def _dropped(self, source_Q: Tensor, counters: tuple[int, ...]) -> Callable[[Sequence[Tensor]], Tensor]:
        dropout = Dropout(self.config.negative_dropout_rate, self.seed, "dropout_negatives", counters)

        def draw(sources: Sequence[Tensor]) -> Tensor:
            row_QD = sources[0][source_Q]
            kept_QD = dropout.kept(tuple(row_QD.shape), dropout.generator(row_QD.device))
            return row_QD * kept_QD.to(row_QD.dtype)

        return draw

    def _drawn(self, source_Q: Tensor, counters: tuple[int, ...]) -> Callable[[Sequence[Tensor]], Tensor]:
        config = self.config

        def draw(sources: Sequence[Tensor]) -> Tensor:
            mean_QD, spread_QD = sources[1][source_Q], sources[2][source_Q].exp()
            generator = torch_generator(self.seed, "vi_negatives", *counters, device=str(mean_QD.device))
            noise_QD = torch.randn(mean_QD.shape, generator=generator, device=mean_QD.device) * spread_QD
            if not config.is_strict:
                return config.vi_shift * mean_QD + noise_QD
            length_Q1 = mean_QD.norm(dim=1, keepdim=True)
            moved_QD: Tensor = mean_QD + config.vi_noise * length_Q1 * cosine_rows(noise_QD)
            return moved_QD

        return draw
