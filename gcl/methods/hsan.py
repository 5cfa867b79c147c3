"""HSAN: hard sample aware contrast of two linear encoders, with structure in the similarity."""

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gcl.augment import entry_dropout
from gcl.clustering.geometry import squared_distance
from gcl.clustering.kmeans import KMeansFit, fit_kmeans
from gcl.clustering.legacy_kmeans import fit_legacy_kmeans
from gcl.config import Config as BaseConfig
from gcl.encoders import linear_layer
from gcl.errors import UnsuitableSetting
from gcl.graph import Graph
from gcl.losses.grouped import cosine_rows
from gcl.losses.hsan import (
    BOTH_WAYS,
    VIEW_PAIRS,
    Cosines,
    ViewPair,
    ViewSimilarity,
    cosines,
    hsan_loss,
    linear_cosines,
    mixed_similarity,
)
from gcl.losses.hsan_weights import (
    FrozenWeights,
    KeptWeights,
    confident_nodes,
    frozen_weights,
    keep_weights,
    kept_weights_bytes,
)
from gcl.methods.base import (
    EMBED_ROWS,
    Batch,
    Method,
    PairWeights,
    ParameterGroup,
    TrainingData,
    TrainingSize,
    evaluation,
)
from gcl.methods.configs.hsan import HsanConfig
from gcl.methods.hsan_encoders import StructureEncoder
from gcl.methods.hsan_limits import KEPT_TILES_BYTES, check_memory, check_size, memory_estimate
from gcl.methods.hsan_state import HsanState
from gcl.propagation import Propagation
from gcl.random import derive_seed, torch_generator

WEIGHED_ANCHORS, GATHERED_NUMBERS = 64, 1 << 24
"""Anchors whose pairs are weighed at once: at most so many, and as few as hold so many numbers of others."""


class Hsan(Method):
    """HSAN, clustering by contrast of two encoders, hard pairs weighted by a clustering of the moment.

    Idea:
        No augmentation: a node's two views are two linear encoders of its smoothed row that share no
        weights. Similarity mixes attributes with structure, embedded from the rows of the adjacency. Every
        few epochs the nodes are clustered, and between nodes whose cluster is trusted the weight of a pair
        grows with its hardness: alike but in two clusters, or unlike but in one.

    Objective:
        With a, b over all 2N (node, view) pairs, a' the other view of a, rows of unit length and alpha a
        free scalar, averaged over a::

            S_ab = alpha Z_a.Z_b + (1 - alpha) E_a.E_b
            L(a) = log sum_{b != a} exp(M_ab S_ab) - M_aa' S_aa'
            M_ab = |Q_ab - S'_ab|^beta if both nodes are trusted, else 1

        Q is 1 within a cluster and 0 between, S' is S of the last refresh scaled to [0, 1]; M is 1 up to the
        first refresh and has no gradient. There is no temperature. Pairs of one cluster are *not* attracted:
        they stay in the sum, and a hard one is repelled more; only a node's own two views attract.

    Inputs:
        x_NF float32 smoothed rows (paper: PCA, then t steps of D^-1/2 (A + I) D^-1/2, no row norm) and the
        graph, whose rows are embedded as the source has them, self-loops included. No labels. K is
        `num_clusters`. The structure encoders have weights for every node, so another number of nodes is
        refused. The embedding is (Z_1 + Z_2) / 2, not normalised again.

    Defaults and their source:
        The released code's for a data set it does not name: D 1500, identity, tau .9, beta 1, alpha .99999,
        refresh every 10 epochs; with two filter steps, Adam at 1e-3 and 400 epochs, full batch; its 500
        principal components are not a default here, as few graphs have so many features. Presets hold the
        published settings of six data sets. view_dropout_rate is ours.

    Deviations from paper:
        semantics "paper" is the paper's loss; "released" is what the authors' code runs: weights of pairs
        that are no longer trusted keep an old value, gradients are never reset (on the Brazilian airports
        worth 13 points of accuracy at the last epoch), and clusters come from one start of k-means. Neither
        picks an epoch by the labels. The views that uncertainty is measured with are dropped-out rows
        through both encoders: the two encoders alone would give two views, however many are asked for.

    Reference:
        Liu, Yang, Zhou, Liu, Wang, Liang, Tu, Li, Duan, Chen: Hard Sample Aware Network for Contrastive Deep
        Graph Clustering, AAAI 2023, arXiv 2212.08665; code yueliu1999/HSAN at e9ad59b.
    """

    name = "hsan"
    Config: ClassVar[type[BaseConfig]] = HsanConfig
    inputs = "smoothed_and_graph"
    is_transductive = True
    config: HsanConfig
    training_state: HsanState

    def __init__(
        self,
        config: HsanConfig,
        *,
        num_features: int,
        num_classes: int | None,
        seed: int,
        num_nodes: int | None = None,
    ) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        if num_features < 1:
            raise ValueError("hsan needs at least one feature column")
        if num_nodes is None:
            raise ValueError("hsan has weights for every node: num_nodes must be given")
        check_size(config, num_nodes)
        self.config, self.num_features, self.num_nodes = config, num_features, num_nodes
        self.num_clusters = _num_clusters(config, num_classes)
        generator = torch_generator(seed, "init")
        self.attribute_encoders = nn.ModuleList(
            linear_layer(num_features, config.embedding_size, bias=True, generator=generator) for _ in (0, 1)
        )
        self.structure_encoders = nn.ModuleList(
            StructureEncoder(num_nodes, config.embedding_size, generator) for _ in (0, 1)
        )
        self.alpha = nn.Parameter(torch.tensor(config.initial_alpha), requires_grad=config.learn_alpha)
        check_memory(config, num_nodes)
        self.training_state = HsanState(
            self.named_parameters(),
            num_nodes=num_nodes,
            sums_gradients=config.sums_gradients,
            stale_pairs=VIEW_PAIRS if config.keeps_stale_weights else (),
        )
        self._weights: FrozenWeights | KeptWeights | None = None
        self._known_graph: tuple[Graph, torch.device, Propagation] | None = None
        self.register_load_state_dict_post_hook(_forget_weights)  # type: ignore[no-untyped-call]

    @classmethod
    def memory_estimate(cls, config: BaseConfig, size: TrainingSize) -> dict[str, int]:
        """Weights of every node, with Adam's two moments and gradients, and the kept weights of pairs."""
        assert isinstance(config, HsanConfig)  # noqa: S101  what `Config` is here
        return memory_estimate(config, size)

    def epoch_batches(
        self, data: TrainingData, *, epoch: int, seed: int, batch_size: int
    ) -> Iterator[Tensor]:
        """One batch of all nodes, in order; the batch size plays no part."""
        yield torch.arange(data.num_nodes)

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """The loss over all pairs; watched: alpha, similarity of positives, share of trusted nodes."""
        x_NF, graph = _all_rows(batch, self.num_nodes), _graph_of(batch)
        similarity = self._similarity(x_NF, graph, dict(self.named_parameters()))
        return {
            "loss": hsan_loss(similarity, self._pair_weights(x_NF, graph), keep_tiles_bytes=KEPT_TILES_BYTES),
            "alpha": self.alpha.detach().clone(),
            "positive_similarity": similarity.positive_N.detach().mean(),
            "confident_share": self.training_state.is_confident_N.float().mean(),
        }

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters, but for an alpha that is not to be learned."""
        held = () if self.config.learn_alpha else ("alpha",)
        return [ParameterGroup("all", [p for name, p in self.named_parameters() if name not in held])]

    def after_backward(self, *, epoch: int, step: int) -> None:
        """Replace gradients by their sum over all steps so far, where the settings say so."""
        if self.config.sums_gradients:
            self.training_state.sum_gradients(self.named_parameters())

    def after_epoch(self, data: TrainingData, *, epoch: int, seed: int) -> None:
        """Every few epochs, from the first on: cluster, find the trusted nodes, freeze the similarity."""
        if epoch % self.config.refresh_every:
            return
        z_ND = self.embed(data)
        fit = self._cluster(z_ND, derive_seed(seed, "refresh", epoch))
        distance_NK = squared_distance(z_ND, fit.centroid_KD)
        is_confident_N = confident_nodes(distance_NK, kept_rate=self.config.confident_rate)
        self.training_state.refresh(self.named_parameters(), fit.cluster_N, is_confident_N)
        self._weights = None

    def embed(self, data: TrainingData, *, batch_size: int = EMBED_ROWS) -> np.ndarray:
        """float32 [N, D] mean of both encoders' unit rows, not normalised again."""
        return self._embed_blocks(data, batch_size, lambda x_BF, _block: x_BF)

    def embed_view(
        self, data: TrainingData, *, view: int, seed: int, batch_size: int = EMBED_ROWS
    ) -> np.ndarray:
        """float32 [N, D] the same for rows with entries dropped, drawn from (seed, view)."""

        def drop(x_BF: Tensor, block: int) -> Tensor:
            draws = torch_generator(seed, "embed_view", view, block, device=str(self.device))
            return entry_dropout(x_BF, self.config.view_dropout_rate, draws)

        return self._embed_blocks(data, batch_size, drop)

    def negative_weights(
        self, data: TrainingData, anchors_A: np.ndarray, candidates_AM: np.ndarray, *, seed: int
    ) -> PairWeights | None:
        """M and S of the last refresh, means over the four pairs of views; None before the first refresh."""
        if not self.training_state.has_refreshed:
            return None
        x_NF, graph = _x_of(data).to(self.device), _graph_of(data)
        with torch.no_grad():
            weights = self._pair_weights(x_NF, graph)
            similarity = self._frozen_similarity(x_NF, graph)
        if weights is None:
            return None
        similarity_AM, weight_AM = (np.empty(candidates_AM.shape, np.float32) for _ in range(2))
        found = PairWeights(similarity_AM, weight_AM, bound=similarity.bound)
        gathered = candidates_AM.shape[1] * similarity.width
        num_anchors = max(1, min(WEIGHED_ANCHORS, GATHERED_NUMBERS // max(1, gathered)))
        for first in range(0, len(anchors_A), num_anchors):
            part = slice(first, first + num_anchors)
            nodes_A = torch.from_numpy(anchors_A[part]).to(self.device)
            others_AM = torch.from_numpy(candidates_AM[part]).to(self.device)
            for table, into_AM in ((similarity, found.similarity_AM), (weights, found.weight_AM)):
                of_views = [table.of_pairs(pair, nodes_A, others_AM) for pair in BOTH_WAYS]
                into_AM[part] = torch.stack(of_views).mean(dim=0).float().cpu().numpy()
        return found

    def check(self, data: TrainingData) -> None:
        """Refuse another number of nodes or columns, and more clusters than nodes."""
        super().check(data)
        if data.num_nodes != self.num_nodes:
            raise ValueError(_other_nodes(self.num_nodes, data.num_nodes))
        if (num_features := _x_of(data).shape[1]) != self.num_features:
            raise ValueError(f"hsan was built for {self.num_features} columns, not {num_features}")
        if self.num_clusters > data.num_nodes:
            raise UnsuitableSetting(
                f"method.num_clusters={self.num_clusters} is more than the {data.num_nodes} nodes"
            )

    def notes(self, data: TrainingData) -> list[str]:
        """What the settings take from the released code rather than from the paper."""
        released = {
            "pairs that are no longer trusted keep an earlier weight": self.config.keeps_stale_weights,
            "gradients are summed over all steps and never reset": self.config.sums_gradients,
            "clusters of a refresh come from one start of k-means": self.config.uses_legacy_kmeans,
        }
        said = [text for text, is_so in released.items() if is_so]
        return [f"hsan as the released code runs: {'; '.join(said)}"] if said else []

    def _similarity(self, x_NF: Tensor, graph: Graph, weights: dict[str, Tensor]) -> ViewSimilarity:
        """S with the given weights, named as the parameters are, in full precision."""
        with torch.autocast(self.device.type, enabled=False):
            attributes = self._attribute_cosines(
                x_NF,
                [weights[f"attribute_encoders.{v}.weight"] for v in (0, 1)],
                [weights[f"attribute_encoders.{v}.bias"] for v in (0, 1)],
            )
            structure = self._structure_cosines(
                graph,
                [weights[f"structure_encoders.{v}.weight_ND"] for v in (0, 1)],
                [weights[f"structure_encoders.{v}.bias_D"] for v in (0, 1)],
            )
            return mixed_similarity(attributes, structure, weights["alpha"])

    def _attribute_cosines(
        self, x_NF: Tensor, weight_VDF: Sequence[Tensor], bias_VD: Sequence[Tensor]
    ) -> Cosines:
        is_narrow = self.num_features + 1 < min(self.config.embedding_size, self.num_nodes)
        if self.config.activation == "identity" and is_narrow:
            return linear_cosines(x_NF, weight_VDF, bias_VD)
        layers = zip(weight_VDF, bias_VD, strict=True)
        return cosines(
            [self._activate(nn.functional.linear(x_NF, weight_DF, bias_D)) for weight_DF, bias_D in layers]
        )

    def _structure_cosines(
        self, graph: Graph, weight_VND: Sequence[Tensor], bias_VD: Sequence[Tensor]
    ) -> Cosines:
        propagation = self._propagation(graph)
        layers = zip(weight_VND, bias_VD, strict=True)
        return cosines([propagation.neighbour_sum(weight_ND) + bias_D for weight_ND, bias_D in layers])

    def _frozen_similarity(self, x_NF: Tensor, graph: Graph) -> ViewSimilarity:
        """S with the weights of the last refresh."""
        return self._similarity(x_NF, graph, self.training_state.frozen_parameters())

    def _pair_weights(self, x_NF: Tensor, graph: Graph) -> FrozenWeights | KeptWeights | None:
        """M of the last refresh; None before the first.

        Computed at the first step that needs it, in the precision of that step, from nothing but the
        training state, so that a resumed run finds the same.
        """
        state = self.training_state
        if self._weights is None and state.has_refreshed:
            stale = state.stale_weights()
            self._weights = KeptWeights(stale) if stale and not state.is_pending else None
            self._weights = self._weights or self._fresh_weights(x_NF, graph, stale)
        return self._weights

    def _fresh_weights(
        self, x_NF: Tensor, graph: Graph, stale: dict[ViewPair, Tensor] | None
    ) -> FrozenWeights | KeptWeights:
        state = self.training_state
        with torch.no_grad():
            frozen = frozen_weights(
                self._frozen_similarity(x_NF, graph),
                state.cluster_N,
                state.is_confident_N,
                power=self.config.focus_power,
            )
            state.is_pending.fill_(False)
            is_small = kept_weights_bytes(self.num_nodes) <= self.config.kept_weights_bytes
            return keep_weights(frozen, stale) if is_small else frozen

    def _cluster(self, z_ND: np.ndarray, seed: int) -> KMeansFit:
        if self.config.uses_legacy_kmeans:
            return fit_legacy_kmeans(z_ND, self.num_clusters, seed=seed)
        return fit_kmeans(z_ND, self.num_clusters, seeds=[seed], num_restarts=self.config.num_restarts)[0]

    def _embed_blocks(
        self, data: TrainingData, batch_size: int, change: Callable[[Tensor, int], Tensor]
    ) -> np.ndarray:
        if data.num_nodes != self.num_nodes:
            raise ValueError(_other_nodes(self.num_nodes, data.num_nodes))
        z_ND = np.empty((data.num_nodes, self.config.embedding_size), np.float32)
        x_NF = _x_of(data)
        with evaluation(self), torch.no_grad():
            for block, first in enumerate(range(0, data.num_nodes, batch_size)):
                x_BF = change(x_NF[first : first + batch_size].to(self.device), block)
                views = [cosine_rows(self._activate(encoder(x_BF))) for encoder in self.attribute_encoders]
                z_ND[first : first + batch_size] = ((views[0] + views[1]) / 2).cpu().numpy()
        return z_ND

    def _activate(self, z_ND: Tensor) -> Tensor:
        return z_ND.sigmoid() if self.config.activation == "sigmoid" else z_ND

    def _propagation(self, graph: Graph) -> Propagation:
        known = self._known_graph
        if known is None or known[0] is not graph or known[1] != self.device:
            known = (graph, self.device, Propagation.from_graph(graph, device=str(self.device)))
            self._known_graph = known
        return known[2]


def _num_clusters(config: HsanConfig, num_classes: int | None) -> int:
    if config.num_clusters != "classes":
        return config.num_clusters
    if num_classes is None:
        raise UnsuitableSetting(
            "method.num_clusters='classes' needs a source with labels: set method.num_clusters to a count"
        )
    return num_classes


def _forget_weights(method: nn.Module, _keys: object) -> None:
    """Loaded state may come from another refresh than the weights in memory."""
    method._weights = None  # type: ignore[assignment]


def _all_rows(batch: Batch, num_nodes: int) -> Tensor:
    """The rows of all nodes in the order of their numbers."""
    if batch.x_BF is None:
        raise ValueError("hsan reads smoothed rows, and the batch has none")
    if len(batch.rows_B) != num_nodes:
        raise ValueError(_other_nodes(num_nodes, len(batch.rows_B)))
    return torch.empty_like(batch.x_BF).index_copy_(0, batch.rows_B, batch.x_BF)


def _graph_of(data: TrainingData | Batch) -> Graph:
    if data.graph is None:
        raise ValueError("hsan reads the graph, and none was given")
    return data.graph


def _x_of(data: TrainingData) -> Tensor:
    if data.x_NF is None:
        raise ValueError("hsan reads smoothed rows, and none were given")
    return torch.from_numpy(np.ascontiguousarray(data.x_NF, np.float32))


def _other_nodes(built_for: int, given: int) -> str:
    return (
        f"hsan was built for {built_for} nodes, not {given}: it has weights for every node (it is "
        "transductive), so a changed graph needs a new training"
    )
