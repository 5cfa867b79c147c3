"""NML-GCL: contrast of two views of the graph, negatives weighted by a learned metric or by its optimum."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gcl.config import Config
from gcl.graph import Graph
from gcl.losses.grouped import cosine_rows
from gcl.losses.nml import MetricRows, nml_loss, relative_weights
from gcl.losses.nml_free_form import FIRST_SWEEPS, SETTLED_SWEEPS, free_form_weights, nml_free_form_loss
from gcl.methods.base import Batch, PairWeights, ParameterGroup, TrainingData
from gcl.methods.configs.nml_gcl import NmlGclConfig
from gcl.methods.graph_views import GraphViewsMethod, WeightsOf, graph_of
from gcl.methods.metric_network import MetricNetwork

ENCODER, METRIC = "encoder", "metric"
WATCHED_ANCHORS, WATCHED_CANDIDATES = 128, 1024
"""Nodes whose pairs are watched: evenly spaced, and few enough that watching costs nothing."""
KEPT_TILES_BYTES = 1 << 29
"""Logits up to this size (8,192 nodes with one head) are kept for the backward pass, not computed again."""


class NmlGcl(GraphViewsMethod):
    """NML-GCL, InfoNCE between two views with negatives weighted by a metric that is learned in turns.

    Idea:
        Of the other nodes some are false negatives, which should not be pushed away. A small network g maps
        embeddings to a second space, and the softmax of cosines there says how much each other node counts
        as a negative. Network and encoder take turns at the same loss; a divergence from uniform weights
        keeps the network from putting all weight on one node.

    Objective:
        With embeddings u, v of the views, s_ij = cos(u_i, v_j) / temperature, logits a_ij =
        metric_sign * cos(g(u_i), g(v_j)) / metric_temperature and weights m_ij = softmax_j(a_ij), the mean
        over both directions and all i of::

            -log( e^s_ii / (e^s_ii + (N-1) sum_j m_ij e^s_ij) ) + alpha_eff * KL(uniform || m_i)

        alpha_eff is alpha * (N - 1) (`alpha_scale`). With two heads a_ij = cos(g1(anchor), g2(candidate)),
        whichever view the anchor is of. All pairs count, streamed: memory is O(N D), `gcl.losses.nml`.

    Inputs:
        The graph with features; no labels. N = 1 is not defined. Without edges it is a contrast of masked
        features.

    Defaults and their source:
        The released code for Cora: GCN of 512 and 512 units with RReLU between and none after, raw features,
        masked columns .1, dropped edges .4, temperature .8, alpha .1 scaled by N - 1, network 512-512-512
        with RReLU, two network steps a turn, the positive among the candidates, gradients of the encoder
        through the weights; with Adam at 5e-4, weight decay 1e-3, 200 epochs. Presets hold other data sets.

    Deviations from paper:
        Embeddings are taken in evaluation mode (the released test leaves RReLU random). The slopes of RReLU
        in the encoder are drawn once an epoch, so one encoding serves all network steps of it. Two optimiser
        groups instead of one Adam whose frozen half may still decay. Above `max_exact_nodes` nodes, each
        step contrasts a random sample. Start, ramp, sign, heads and joint steps are ours.

        `metric=free_form` is ours too: no network, but the weights that minimise the objective, known in
        closed form (`gcl.losses.nml_free_form`) and tracked by one sweep an epoch. They carry no gradient,
        which is exact at the minimum. They differ from uniform ones where alpha_eff is of the size of 1,
        and most at small temperatures; during a ramp they are those of alpha_eff / strength. Their
        divergence is reported (`kl_divergence`, of the watched anchors) but not part of the loss.

        The paper derives a tighter bound on mutual information than InfoNCE's. We promise no bound: rows that
        sum to one are not enough for it when the weights depend on the samples (for independent views, m
        falling with s already gives an estimate above the true value of 0), and that the best weights do at
        least as well as uniform ones says nothing of those learned.

        What we measured of the released settings, on Cora and CiteSeer: no gain over uniform weights beyond
        the spread of encoder seeds (about 2 points). The learned weights end within 1 % of uniform, similar
        pairs weighing slightly *more*: the cosine of one shared g is a positive semi-definite kernel, whose
        nearest approach to weights that fall with similarity is a constant. `metric_sign=-1` lets them fall
        (correlation -.97); whether that, or `metric_heads=two`, helps is open. Hence `metric=uniform` is
        the control to report beside any result, and the weights are watched in the history.

    Reference:
        Negative Metric Learning for Graph Contrastive Learning, IJCAI 2025, pp. 7137-7145,
        doi 10.24963/ijcai.2025/794, arXiv 2505.10307; code mitsuha0258/NML-GCL at 32b6013.
    """

    name = "nml_gcl"
    Config: ClassVar[type[Config]] = NmlGclConfig
    config: NmlGclConfig  # type: ignore[assignment]

    def __init__(
        self, config: NmlGclConfig, *, num_features: int, num_classes: int | None, seed: int
    ) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        num_heads = {"one": 1, "two": 2}[config.metric_heads] if config.metric == "network" else 0
        self.metric_heads = nn.ModuleList(
            MetricNetwork(config, self.init_generator) for _ in range(num_heads)
        )
        self.training_state.register_buffer("metric_strength", torch.ones(()))
        if config.metric == "free_form":  # of an epoch's two views: what the next one's weights start from
            self.training_state.register_buffer("log_mass_VN", torch.empty(2, 0))
        self._next_log_mass_VN: Tensor | None = None
        self._constant: _ConstantViews | None = None

    def parameter_groups(self) -> list[ParameterGroup]:
        """The encoder, and the metric network if there is one."""
        groups = [ParameterGroup(ENCODER, list(self.encoder.parameters()))]
        if len(self.metric_heads):
            rate, decay = self.config.metric_learning_rate, self.config.metric_weight_decay
            groups.append(ParameterGroup(METRIC, list(self.metric_heads.parameters()), rate, decay))
        return groups

    def moving_group(self, *, epoch: int, step: int) -> str | None:
        """The metric in the first steps of an epoch, the encoder in the last; both when they move jointly."""
        if not len(self.metric_heads):
            return None
        if self.config.joint and epoch >= self.config.metric_start_epoch:
            return None
        return METRIC if step < self._num_metric_steps(epoch) else ENCODER

    def epoch_batches(
        self, data: TrainingData, *, epoch: int, seed: int, batch_size: int
    ) -> Iterator[Tensor]:
        """All nodes, once for each step of the metric and once for the encoder."""
        for _ in range(self._num_metric_steps(epoch) + 1):
            yield torch.arange(data.num_nodes)

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """The weighted loss; watched in the encoder's step: how the weights lie, and go with similarity."""
        graph = graph_of(batch)
        is_metric_step = self.moving_group(epoch=epoch, step=step) == METRIC
        encode = self._constant_views if is_metric_step else self.encode_views
        u_ND, v_ND = encode(graph, epoch=epoch, seed=seed)
        nodes = self.sampled_nodes(graph.num_nodes, epoch=epoch, step=step, seed=seed)
        if nodes is not None:
            u_ND, v_ND = u_ND[nodes], v_ND[nodes]
        strength = 1.0 if is_metric_step else self._metric_strength(epoch)
        if self.config.metric == "free_form" and strength > 0:
            return self._free_form_terms(u_ND, v_ND, strength, is_sample=nodes is not None)
        draws = [self.generator(seed, "metric_rrelu", epoch, step, view) for view in (0, 1)]
        metric = self._metric_rows(u_ND, v_ND, draws) if strength > 0 else None
        found = nml_loss(
            u_ND,
            v_ND,
            metric,
            temperature=self.config.temperature,
            metric_temperature=self.config.metric_temperature / (strength or 1.0),
            metric_sign=self.config.metric_sign,
            include_self=self.config.include_self,
            kl_weight=self.kl_weight(len(u_ND)),
            keep_tiles_bytes=KEPT_TILES_BYTES,
        )
        terms = {"loss": found.loss, "contrastive_loss": found.contrast, "kl_divergence": found.kl}
        if not is_metric_step:
            self._constant = None
            terms |= self._watched(u_ND, v_ND, None if metric is None else self._learned(metric, strength))
        return terms

    def after_epoch(self, data: TrainingData, *, epoch: int, seed: int) -> None:
        """Note how far the metric's ramp has come, and where the free-form weights stand."""
        self.training_state.get_buffer("metric_strength").fill_(self._metric_strength(epoch))
        if self._next_log_mass_VN is not None:
            self.training_state.register_buffer("log_mass_VN", self._next_log_mass_VN)
            self._next_log_mass_VN = None

    def kl_weight(self, num_contrasted: int) -> float:
        """Coefficient of the divergence from uniform weights: alpha_eff.

        Args:
            num_contrasted: N, nodes contrasted with one another.
        """
        if not self.config.use_kl:
            return 0.0
        is_scaled = self.config.alpha_scale == "n_minus_1"
        return self.config.alpha * (num_contrasted - 1 if is_scaled else 1)

    def negative_weights(
        self, data: TrainingData, anchors_A: np.ndarray, candidates_AM: np.ndarray, *, seed: int
    ) -> PairWeights | None:
        """N m_ij of pairs, anchors in one fresh view and candidates in another.

        The weight of a pair is its share of all N nodes, so each anchor costs O(N). Free-form weights are
        settled anew for these views. None for uniform weights, of a metric that training ended too early to
        begin too.
        """
        strength = float(self.training_state.get_buffer("metric_strength"))
        if self.config.metric == "uniform" or strength == 0:
            return None

        def weighing(u_ND: Tensor, v_ND: Tensor) -> WeightsOf:
            if self.config.metric == "free_form":
                return self._free_form(u_ND, v_ND, strength)
            return self._learned(self._metric_rows(u_ND, v_ND, None), strength)

        return self.weigh_in_fresh_views(graph_of(data), anchors_A, candidates_AM, weighing, seed=seed)

    def notes(self, data: TrainingData) -> list[str]:
        """Whether negatives are sampled, and whether the metric ever played a part."""
        found = super().notes(data)
        if self.config.metric != "uniform" and not self.training_state.get_buffer("metric_strength"):
            found.append(
                "negatives were not weighted: training ended before "
                f"method.metric_start_epoch={self.config.metric_start_epoch}, up to which they weigh the same"
            )
        return found

    def _num_metric_steps(self, epoch: int) -> int:
        """Steps of the metric alone in an epoch."""
        has_own = len(self.metric_heads) > 0 and not self.config.joint
        return self.config.metric_steps if has_own and epoch >= self.config.metric_start_epoch else 0

    def _metric_strength(self, epoch: int) -> float:
        """Factor of the metric's logits in the encoder's steps: 0 before the start, 1 after the ramp."""
        if self.config.metric == "uniform" or epoch < self.config.metric_start_epoch:
            return 0.0
        num_grown = epoch - self.config.metric_start_epoch + 1
        return min(1.0, num_grown / (self.config.metric_ramp_epochs + 1))

    def _constant_views(self, graph: Graph, *, epoch: int, seed: int) -> list[Tensor]:
        """The embeddings of the epoch's views without gradients; kept while the encoder holds still."""
        # In-place changes of a tensor count up its version: no other encoder's views can be taken for these.
        versions = tuple(parameter._version for parameter in self.encoder.parameters())
        key = (epoch, seed, self.device, torch.is_autocast_enabled(self.device.type), versions)
        if self._constant is None or self._constant.graph is not graph or self._constant.key != key:
            with torch.no_grad():
                views = self.encode_views(graph, epoch=epoch, seed=seed)
            self._constant = _ConstantViews(graph, key, views)
        return self._constant.views

    def _metric_rows(self, u_ND: Tensor, v_ND: Tensor, draws: list[torch.Generator] | None) -> MetricRows:
        """What the metric reads of two views; `draws` of its rrelu a view, None for evaluation."""
        if self.config.detach_metric:
            u_ND, v_ND = u_ND.detach(), v_ND.detach()
        if not len(self.metric_heads):
            return MetricRows(u_ND, v_ND)
        first, second = (None, None) if draws is None else draws
        as_anchor, as_candidate = self.metric_heads[0], self.metric_heads[-1]
        if as_anchor is as_candidate:
            return MetricRows(as_anchor(u_ND, first), as_anchor(v_ND, second))
        return MetricRows(
            u_anchor_NM=as_anchor(u_ND, first),
            v_candidate_NM=as_candidate(v_ND, second),
            v_anchor_NM=as_anchor(v_ND, second),
            u_candidate_NM=as_candidate(u_ND, first),
        )

    def _free_form_terms(
        self, u_ND: Tensor, v_ND: Tensor, strength: float, *, is_sample: bool
    ) -> dict[str, Tensor]:
        """The loss under free-form weights; of a sample of nodes they start anew, else where they stood."""
        known_VN: Tensor | None = self.training_state.get_buffer("log_mass_VN")
        if is_sample or known_VN is None or known_VN.shape[1] != len(u_ND):
            known_VN = None
        found = nml_free_form_loss(
            u_ND,
            v_ND,
            temperature=self.config.temperature,
            alpha=self.kl_weight(len(u_ND)) / strength,
            log_mass_VN=known_VN,
            include_self=self.config.include_self,
            keep_tiles_bytes=KEPT_TILES_BYTES,
        )
        if not is_sample:
            self._next_log_mass_VN = found.log_mass_VN
        weights_of = self._free_form(
            u_ND,
            v_ND,
            strength,
            num_sweeps=FIRST_SWEEPS if known_VN is None else 1,
            log_mass_N=None if known_VN is None else known_VN[0],
        )
        watched = self._watched(u_ND, v_ND, weights_of)
        return {"loss": found.loss, "contrastive_loss": found.loss.detach()} | watched

    def _free_form(
        self,
        u_ND: Tensor,
        v_ND: Tensor,
        strength: float,
        *,
        num_sweeps: int = SETTLED_SWEEPS,
        log_mass_N: Tensor | None = None,
    ) -> WeightsOf:
        """Free-form weights of anchors of the first view, of as many nodes as a step contrasts."""
        num_contrasted = len(u_ND)
        if num_contrasted > self.config.max_exact_nodes:
            num_contrasted = min(num_contrasted, self.config.num_sampled_nodes)
        u_ND, v_ND = cosine_rows(u_ND.detach()) / self.config.temperature, cosine_rows(v_ND.detach())

        def weights_of(anchors_A: Tensor) -> Tensor:
            u_AD = u_ND[anchors_A]
            return free_form_weights(
                u_AD @ v_ND.T,
                (u_AD * v_ND[anchors_A]).sum(dim=1),
                alpha=self.kl_weight(num_contrasted) / strength,
                log_mass_A=None if log_mass_N is None else log_mass_N[anchors_A],
                num_sweeps=num_sweeps,
                self_A=None if self.config.include_self else anchors_A,
                num_contrasted=num_contrasted,
            )

        return weights_of

    def _learned(self, metric: MetricRows, strength: float) -> WeightsOf:
        """Weights of a network or of cosines, for anchors of the first view."""

        def weights_of(anchors_A: Tensor) -> Tensor:
            return relative_weights(
                metric.u_anchor_NM[anchors_A],
                metric.v_candidate_NM,
                metric_temperature=self.config.metric_temperature / strength,
                metric_sign=self.config.metric_sign,
                self_A=None if self.config.include_self else anchors_A,
            )

        return weights_of

    @torch.no_grad()
    def _watched(self, u_ND: Tensor, v_ND: Tensor, weights_of: WeightsOf | None) -> dict[str, Tensor]:
        """Correlation of weight and similarity, and quantiles of N m, over a sample of pairs (i, j != i)."""
        if self.config.metric == "uniform":
            return {}
        names = ("weight_05_percent", "weight_50_percent", "weight_95_percent")
        if weights_of is None:
            one = torch.ones((), device=u_ND.device)
            return {"weight_similarity_correlation": one * 0} | dict.fromkeys(names, one)
        num_nodes = len(u_ND)
        with torch.autocast(u_ND.device.type, enabled=False):
            anchors_A = _evenly(num_nodes, WATCHED_ANCHORS, u_ND.device)
            candidates_M = _evenly(num_nodes, WATCHED_CANDIDATES, u_ND.device)
            is_pair_AM = anchors_A[:, None] != candidates_M
            weight_AN = weights_of(anchors_A)
            weight = weight_AN[:, candidates_M][is_pair_AM]
            similarity_AM = cosine_rows(u_ND[anchors_A]) @ cosine_rows(v_ND[candidates_M]).T
            quantiles = torch.quantile(weight, weight.new_tensor([0.05, 0.5, 0.95]))
            terms = {"weight_similarity_correlation": _correlation(weight, similarity_AM[is_pair_AM])}
            if self.config.metric == "free_form":  # the loss does not need it, so a sample is enough
                terms["kl_divergence"] = -weight_AN[weight_AN > 0].log().mean()
        return terms | dict(zip(names, quantiles, strict=True))


@dataclass(frozen=True, eq=False)
class _ConstantViews:
    """Embeddings of both views without gradients, and what they were made of."""

    graph: Graph
    key: tuple[object, ...]
    views: list[Tensor]


def _evenly(num_nodes: int, num_wanted: int, device: torch.device) -> Tensor:
    """At most `num_wanted` node ids, evenly spaced."""
    return torch.arange(0, num_nodes, math.ceil(num_nodes / num_wanted), device=device)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's coefficient; 0 where one of the two does not vary."""
    first, second = first.double() - first.double().mean(), second.double() - second.double().mean()
    norms = first.norm() * second.norm()
    return torch.where(norms > 0, (first * second).sum() / norms.clamp(min=1e-300), 0.0)
