"""HGCVAE: a variational autoencoder over metapaths with masked features and progressive negatives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gcl.config import Config as BaseConfig
from gcl.dropout import Dropout
from gcl.errors import NotDefined, UnsuitableSetting
from gcl.han import HanEncoder, HanLayer
from gcl.hetero_graph import Metapath
from gcl.losses.bank import bank_infonce_loss
from gcl.losses.esce import reconstruction_loss
from gcl.losses.grouped import positive_similarity
from gcl.losses.posterior import active_units, kl_loss, kl_per_dimension
from gcl.methods.base import EMBED_ROWS, Batch, Method, TrainingData, TrainingSize, evaluation
from gcl.methods.configs.hgcvae import HgcvaeConfig
from gcl.methods.graph_views import xavier_linear
from gcl.methods.hgcvae_inputs import Masked, Prepared, graph_of, mask_rows, metapaths_of, prepare
from gcl.methods.hgcvae_limits import memory_estimate
from gcl.methods.hgcvae_negatives import Bank
from gcl.methods.hgcvae_schedules import (
    depends_on_schedule_epochs,
    free_nats,
    kl_weight_at,
    mask_rate_at,
)
from gcl.random import torch_generator

LOG_STD_RANGE = (-5.0, 2.0)
"""Where strict mode clips log sigma."""
MAX_IDENTITY_NODES = 20_000
"""Nodes without features above which the identity matrix, N^2 numbers, is refused in their place."""


@dataclass(frozen=True, eq=False)
class _Codes:
    """What a step encodes: outputs of the encoder's passes, and the posterior of the first."""

    passes: list[Tensor]
    mean_ND: Tensor | None
    log_std_ND: Tensor | None


class Hgcvae(Method):
    """HGCVAE (HGVAE), masked autoencoding over metapaths against negatives that grow harder.

    Idea:
        Attention over the neighbours of each metapath, then over metapaths (HAN), encodes nodes whose
        features are masked, ever more of them as training goes on. A decoder of one such layer reconstructs
        the masked rows; a Gaussian posterior is kept near the standard normal; and each node is told from a
        bank of negatives that belong to no node in particular: at first corrupted embeddings, later draws
        around the posterior's means.

    Objective:
        With h1, h2 two passes of the encoder under other dropout, mu and s = log sigma from h1, B the bank::

            L = w_c CL + w_k KL + w_r REC(rows of masked nodes)
            CL = -mean_i log( e^(cos(h1_i,h2_i)/t) / ( e^(cos(h1_i,h2_i)/t) + sum_B e^(cos(h1_i,b)/t) ) )
            KL = mean_i -1/2 sum_d (1 + 2 s_id - mu_id^2 - e^(2 s_id))

        reference: mu and s are scaled to length 1, the decoder reads h2, REC is `esce_reference`, negatives
        are dropout(h1) or 3 mu + noise e^s, the embedding is h. strict: s is clipped to [-5, 2], the decoder
        reads a draw z1 with masked rows set to zero, KL has free bits and a warm-up, REC is `esce_focal`, a
        negative is none of the node it was made from, noise has half the length of mu, the embedding is mu.

    Inputs:
        The target nodes' raw features (rows divided by their sum; the identity where there are none) and one
        adjacency [N, N] a metapath, of which only the pattern counts. No labels. Every step takes all nodes.
        Without features there are weights for every node, so another number of nodes is refused.

    Defaults and their source:
        The released code's for DBLP, the only ones published: three layers of 4 heads x 256, dropout .2 and
        .3, weights .8, .7 and .2, masking .3 to .6, 10 pairs of negative copies, Adam at 4e-4 for 40 epochs.
        What strict mode sets otherwise is ours.

    Deviations from paper:
        The paper's tables and printed formulas could not be compared. Copies of vi negatives stop at the
        size of the bank (`clamp_negatives`), masking at .8. There is no early stop: the released code stops
        on a loss whose task changes every epoch, and keeps the last weights as here. Each layer has a PReLU
        slope of its own. In reference mode KL is 1.5 and REC log F within 1 % whatever the weights: what
        moves the encoder is the contrast. In strict mode the layers of mu and s have no PReLU. A step may
        take a sample of the bank (`num_negatives`), which shifts the contrast by a constant.

    Reference:
        Hu, Yang, Ouyang, Liu: Refining Latent Representations: A Generative SSL Approach for Heterogeneous
        Graph Learning, arXiv 2310.11102 (2023, v4 2024); code ashes1106/HVGAE at fe97c73. HAN: Wang et al.,
        WWW 2019, arXiv 1903.07293.
    """

    name = "hgcvae"
    Config: ClassVar[type[BaseConfig]] = HgcvaeConfig
    inputs = "graph_and_metapaths"
    is_transductive = True  # of nodes without features: the first layer has a row of weights for each
    config: HgcvaeConfig

    def __init__(
        self,
        config: HgcvaeConfig,
        *,
        num_features: int,
        num_classes: int | None,
        seed: int,
        num_nodes: int | None = None,
        num_metapaths: int | None = None,
    ) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        if not num_metapaths:
            raise NotDefined("hgcvae reads metapaths; this graph has nodes of one type and none of them")
        if num_nodes is None:
            raise ValueError("hgcvae has to know num_nodes")
        if not num_features and num_nodes > MAX_IDENTITY_NODES:
            raise UnsuitableSetting(
                f"hgcvae takes the identity for nodes without features, up to {MAX_IDENTITY_NODES:,} nodes; "
                f"these are {num_nodes:,}: give the target nodes features"
            )
        self.config, self.num_features, self.num_metapaths = config, num_features, num_metapaths
        self.num_nodes = num_nodes
        self.width = num_features or num_nodes
        size, generator = config.embedding_size, torch_generator(seed, "init")

        def layer(head_size: int, num_heads: int, *, is_activated: bool) -> HanLayer:
            return HanLayer(
                size,
                head_size,
                num_metapaths=num_metapaths,
                num_heads=num_heads,
                is_activated=is_activated,
                generator=generator,
            )

        head_size = size // config.num_heads
        self.encoder = HanEncoder(
            self.width,
            head_size,
            num_layers=config.num_layers,
            num_metapaths=num_metapaths,
            num_heads=config.num_heads,
            generator=generator,
        )
        self.mask_token = nn.Parameter(torch.zeros(self.width))
        self.posterior: nn.ModuleList | None = None
        if config.has_posterior:
            is_activated = not config.is_strict
            self.posterior = nn.ModuleList(
                layer(head_size, config.num_heads, is_activated=is_activated) for _ in range(2)
            )
        self.to_decoder: nn.Linear | None = None
        self.decoder: HanLayer | None = None
        if config.reconstruction_weight:
            self.to_decoder = xavier_linear(size, size, generator)
            self.to_decoder.bias = None  # type: ignore[assignment]
            self.decoder = layer(self.width, 1, is_activated=False)
        self.training_state.register_buffer("num_epochs", torch.zeros((), dtype=torch.int64))
        self._prepared: Prepared | None = None

    @classmethod
    def memory_estimate(cls, config: BaseConfig, size: TrainingSize) -> dict[str, int]:
        """Weights, what the layers keep of every node, and pairs where neighbours are dense."""
        assert isinstance(config, HgcvaeConfig)  # noqa: S101  what `Config` is here
        return memory_estimate(config, size)

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """The weighted sum; watched: its parts, cosines of positives and negatives, KL and active units."""
        ready = self._of_batch(batch)
        rate = mask_rate_at(epoch, self.config)
        masked = self._mask(ready, rate, torch_generator(seed, "mask", epoch, step))
        codes = self._encode(ready, masked, counters=(epoch, step), seed=seed)
        terms = {"mask_rate": torch.tensor(rate, device=self.device)}
        loss = torch.zeros((), device=self.device)
        if codes.mean_ND is not None and codes.log_std_ND is not None:
            kl_D = kl_per_dimension(codes.mean_ND, codes.log_std_ND)
            if self.config.kl_weight:
                kl = kl_loss(kl_D, free_nats=free_nats(self.config))
                loss = loss + kl_weight_at(epoch, self.config) * kl
                terms["kl"] = kl.detach()
            terms |= {"largest_kl": kl_D.detach().max(), "active_units": self._active(codes.mean_ND)}
        if self.config.contrast_weight:
            contrast, watched = self._contrast(codes, epoch=epoch, step=step, seed=seed)
            loss = loss + self.config.contrast_weight * contrast
            terms |= {"contrast": contrast.detach()} | watched
        if self.decoder is not None:
            reconstruction = self._reconstruct(ready, masked, codes, counters=(epoch, step), seed=seed)
            loss = loss + self.config.reconstruction_weight * reconstruction
            terms["reconstruction"] = reconstruction.detach()
        return {"loss": loss} | terms

    def epoch_batches(
        self, data: TrainingData, *, epoch: int, seed: int, batch_size: int
    ) -> Iterator[Tensor]:
        """One batch of all nodes, in order; the batch size plays no part."""
        self._ready(data)  # a batch brings the graph, and not its metapaths
        yield torch.arange(data.num_nodes)

    def after_epoch(self, data: TrainingData, *, epoch: int, seed: int) -> None:
        """Count the epochs, which schedules are laid out for: `notes` says where they are others."""
        self.training_state.get_buffer("num_epochs").fill_(epoch + 1)

    def embed(self, data: TrainingData, *, batch_size: int = EMBED_ROWS) -> np.ndarray:
        """float32 [N, D] encoder output or posterior mean, no features masked, no dropout."""
        ready = self._ready(data)
        with evaluation(self), torch.no_grad():
            h_ND = self.encoder(ready.x_NF, ready.neighbours)
            z_ND: Tensor = self._posterior_of(h_ND, ready)[0] if self.config.embeds_mean else h_ND
            return z_ND.float().cpu().numpy()

    def embed_view(
        self, data: TrainingData, *, view: int, seed: int, batch_size: int = EMBED_ROWS
    ) -> np.ndarray:
        """float32 [N, D] the same with dropout and the first epoch's share of masked nodes."""
        ready = self._ready(data)
        with evaluation(self), torch.no_grad():
            generator = torch_generator(seed, "embed_view", view)
            masked = self._mask(ready, self.config.mask_rate, generator)
            dropouts = self._dropouts(seed, "embed_view", view)
            h_ND = self.encoder(masked.x_NF, ready.neighbours, **dropouts)
            z_ND: Tensor = self._posterior_of(h_ND, ready)[0] if self.config.embeds_mean else h_ND
            return z_ND.float().cpu().numpy()

    def notes(self, data: TrainingData) -> list[str]:
        """The mode, schedules that did not fit, weights of metapaths, and what became of the posterior."""
        found = [f"hgcvae in {self.config.mode} mode, reconstruction by {self.config.recon_form}"]
        if not self.config.is_strict:
            found.append(
                "reference mode: the divergence (1.5) and esce_reference (log F) hardly depend on the "
                "weights, so the contrast alone moves the encoder"
            )
        num_epochs = int(self.training_state.get_buffer("num_epochs"))
        expected = self.config.schedule_epochs
        if num_epochs not in (0, expected) and depends_on_schedule_epochs(self.config):
            found.append(
                f"schedules were laid out for method.schedule_epochs={expected}, and training took "
                f"{num_epochs}: set both alike"
            )
        ready = self._ready(data)
        with evaluation(self), torch.no_grad():
            h_ND, shares = self.encoder.with_shares(ready.x_NF, ready.neighbours)
            found.append(f"weights of the metapaths, by layer: {_by_name(shares, metapaths_of(data))}")
            if self.posterior is not None:
                mean_ND, log_std_ND = self._posterior_of(h_ND, ready)
                kl_D = kl_per_dimension(mean_ND, log_std_ND)
                found.append(
                    f"posterior: {int(self._active(mean_ND))} of {len(kl_D)} dimensions active; divergence a "
                    f"dimension: median {kl_D.median():.4f}, largest {kl_D.max():.4f} nats"
                )
        return found

    def check(self, data: TrainingData) -> None:
        """Refuse another width, number of nodes or of metapaths than it was built for, and too many nodes."""
        super().check(data)
        num_features = graph_of(data).num_features
        if num_features != self.num_features:
            raise ValueError(f"hgcvae was built for {self.num_features} columns, not {num_features}")
        if not num_features and data.num_nodes != self.num_nodes:
            raise ValueError(f"hgcvae was built for {self.num_nodes} nodes, not {data.num_nodes}")
        if len(metapaths_of(data)) != self.num_metapaths:
            raise ValueError(
                f"hgcvae was built for {self.num_metapaths} metapaths, not {len(metapaths_of(data))}"
            )
        for metapath in metapaths_of(data):
            if metapath.adjacency_NN.shape != (data.num_nodes, data.num_nodes):
                raise ValueError(f"metapath {metapath.name} does not join the {data.num_nodes} target nodes")
        if data.num_nodes > self.config.max_nodes:
            raise UnsuitableSetting(
                f"hgcvae takes all {data.num_nodes:,} nodes in every step, more than method.max_nodes="
                f"{self.config.max_nodes:,}: set it higher, or take dmat_i, which trains on batches of rows"
            )

    def _encode(self, ready: Prepared, masked: Masked, *, counters: tuple[int, int], seed: int) -> _Codes:
        """Both passes where both are read, and the posterior of the first."""
        passes = [
            self.encoder(masked.x_NF, ready.neighbours, **self._dropouts(seed, "encoder", *counters, number))
            for number in range(1 + self.config.has_two_passes)
        ]
        if self.posterior is None:
            return _Codes(passes, None, None)
        dropouts = self._dropouts(seed, "posterior", *counters)
        return _Codes(passes, *self._posterior_of(passes[0], ready, **dropouts))

    def _posterior_of(
        self,
        h_ND: Tensor,
        ready: Prepared,
        feature_dropout: Dropout | None = None,
        attention_dropout: Dropout | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation [N, D]."""
        if self.posterior is None:
            raise ValueError("these settings have no posterior")
        mean_ND, log_std_ND = (
            layer(
                h_ND,
                ready.neighbours,
                feature_dropout=feature_dropout and feature_dropout.numbered(number),
                attention_dropout=attention_dropout and attention_dropout.numbered(number),
            )[0].float()
            for number, layer in enumerate(self.posterior)
        )
        if self.config.is_strict:
            return mean_ND, log_std_ND.clamp(*LOG_STD_RANGE)
        return nn.functional.normalize(mean_ND, dim=1), nn.functional.normalize(log_std_ND, dim=1)

    def _contrast(
        self, codes: _Codes, *, epoch: int, step: int, seed: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        views = codes.passes
        if self.config.contrast_on == "z":
            views = [self._draw(codes, number, epoch=epoch, step=step, seed=seed) for number in range(2)]
        bank = Bank(self.config, len(views[0]), self.device, seed, epoch, step)
        sources = [views[0]]
        if self.config.negatives != "dropout":
            sources += _both(codes)
        loss = bank_infonce_loss(
            views[0], views[1], sources, bank.blocks(), temperature=self.config.temperature
        )
        watched = bank.watched([source.detach() for source in sources])
        watched["vi_share"] = torch.tensor(bank.vi_share, device=self.device)
        watched["positive_similarity"] = positive_similarity(torch.stack(views))
        return loss, watched

    def _reconstruct(
        self, ready: Prepared, masked: Masked, codes: _Codes, *, counters: tuple[int, int], seed: int
    ) -> Tensor:
        """The loss of the masked rows."""
        if self.to_decoder is None or self.decoder is None:
            raise ValueError("these settings have no decoder")
        if self.config.is_strict:
            z_ND = self._draw(codes, 0, epoch=counters[0], step=counters[1], seed=seed)
            given_ND = self.to_decoder(z_ND).index_fill(0, masked.nodes, 0.0)
        else:
            given_ND = self.to_decoder(codes.passes[-1])
        dropouts = self._dropouts(seed, "decoder", *counters)
        guess_NF, _ = self.decoder(given_ND.float(), ready.neighbours, **dropouts)
        return reconstruction_loss(
            guess_NF[masked.nodes],
            ready.x_NF[masked.nodes],
            form=self.config.recon_form,
            exponent=self.config.reconstruction_exponent,
        )

    def _draw(self, codes: _Codes, number: int, *, epoch: int, step: int, seed: int) -> Tensor:
        """A draw from the posterior, reparameterised; the same one for the same number."""
        mean_ND, log_std_ND = _both(codes)
        generator = torch_generator(seed, "posterior_draw", epoch, step, number, device=str(self.device))
        noise_ND = torch.randn(mean_ND.shape, generator=generator, device=self.device)
        return mean_ND + noise_ND * log_std_ND.exp()

    def _active(self, mean_ND: Tensor) -> Tensor:
        return active_units(mean_ND, is_unit_length=not self.config.is_strict)

    def _mask(self, ready: Prepared, rate: float, generator: torch.Generator) -> Masked:
        return mask_rows(ready.x_NF, self.mask_token, rate, self.config, generator)

    def _dropouts(self, seed: int, purpose: str, *counters: int) -> dict[str, Dropout]:
        return {
            "feature_dropout": Dropout(
                self.config.feature_dropout_rate, seed, f"{purpose}_feature_dropout", counters
            ),
            "attention_dropout": Dropout(
                self.config.attention_dropout_rate, seed, f"{purpose}_attention_dropout", counters
            ),
        }

    def _ready(self, data: TrainingData) -> Prepared:
        known = self._prepared
        if known is None or not known.serves(data, self.device):
            known = self._prepared = prepare(data, self.config, self.device)
        return known

    def _of_batch(self, batch: Batch) -> Prepared:
        known = self._prepared
        if known is None or known.data.graph is not batch.graph:
            raise ValueError("hgcvae takes the metapaths of a batch from epoch_batches: call it first")
        return self._ready(known.data)


def _both(codes: _Codes) -> tuple[Tensor, Tensor]:
    if codes.mean_ND is None or codes.log_std_ND is None:
        raise ValueError("these settings have no posterior")
    return codes.mean_ND, codes.log_std_ND


def _by_name(shares: list[Tensor], metapaths: tuple[Metapath, ...]) -> str:
    return "; ".join(
        ", ".join(
            f"{metapath.name} {float(share):.2f}" for metapath, share in zip(metapaths, share_M, strict=True)
        )
        for share_M in shares
    )
