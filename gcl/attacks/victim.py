"""Training of victims: from scratch, after GraphCL, or after AUGCL, with equal numbers of epochs.

The recipe is that of Dai et al. (ICML 2018); the contrastive phase with the same network and optimiser is
that of GraphCL's adversarial experiment (You et al., NeurIPS 2020). How AUGCL (arXiv 2301.13340) ran its own
is not public: here the first half of its contrastive epochs is GraphCL, then the estimator is fitted and
kept, and the second half is weighted.

Shape legend: G graphs, B graphs of a batch, N places for nodes, D embedding, C classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcl.attacks.components import ComponentGraphs, LabelledGraphs
from gcl.attacks.padded import PaddedGraphs
from gcl.attacks.structure2vec import GraphClassifier, two_layers
from gcl.attacks.victim_config import VictimConfig
from gcl.errors import NonFiniteLoss, UnsuitableSetting
from gcl.gambler import GamblerHead
from gcl.losses.affinity import affinity_loss
from gcl.losses.affinity_weights import KeptLogWeights
from gcl.losses.grouped import cosine_rows
from gcl.methods.affinity_estimation import Views, fit_head
from gcl.random import torch_generator
from gcl.threads import one_thread

_GRAPHS_AT_ONCE = 2000

OnEpoch = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, eq=False)
class TrainedVictim:
    """A victim as it is attacked.

    Attributes:
        model: with the weights of the chosen epoch.
        epoch: the chosen one, counted from 1.
        history: the loss of each epoch, and loss and accuracy on validation graphs after it; with selection
            on test graphs also `test_loss`.
        answered_share: share of the pairs that the estimator answered when it was fitted; None without one.
    """

    model: GraphClassifier
    epoch: int
    history: list[dict[str, float]]
    answered_share: float | None = None


def build_victim(config: VictimConfig, *, seed: int) -> GraphClassifier:
    """The untrained classifier.

    Args:
        config: its sizes.
        seed: of the initial weights.
    """
    return GraphClassifier(
        embedding_size=config.embedding_size,
        num_rounds=config.num_rounds,
        hidden_size=config.hidden_size,
        num_classes=config.graphs.num_classes,
        generator=torch_generator(seed, "victim"),
    )


def train_victim(
    config: VictimConfig, graphs: ComponentGraphs, *, seed: int, on_epoch: OnEpoch | None = None
) -> TrainedVictim:
    """Train, and keep the supervised epoch of the lowest loss on the selection graphs.

    On one thread: the weights are the same on any number of cores, and a second victim can be trained on
    the next one.

    Args:
        config: how.
        graphs: the test graphs are looked at with ``selection="test"`` alone.
        seed: of initial weights, order, views and the estimator.
        on_epoch: called with the number of finished epochs and what the history has of the last one.

    Raises:
        NonFiniteLoss: it diverged.
        UnsuitableSetting: fewer training graphs than a batch.
    """
    if len(graphs.train.y_G) < config.batch_size:
        raise UnsuitableSetting(
            f"{len(graphs.train.y_G)} training graphs do not fill a batch of {config.batch_size}: "
            "set batch_size lower"
        )
    with one_thread():
        return _Training(config, graphs, seed).run(on_epoch)


def logits_of(model: GraphClassifier, graphs: PaddedGraphs) -> Tensor:
    """Logits [G, C] without gradient, some thousand graphs at a time; G may be 0."""
    x_GN1 = graphs.x_GN1()
    with torch.no_grad():
        parts = [
            model(adjacency_BNN.float(), x_BN1)  # splitting no graphs gives one part without any
            for adjacency_BNN, x_BN1 in zip(
                torch.split(graphs.adjacency_GNN, _GRAPHS_AT_ONCE),
                torch.split(x_GN1, _GRAPHS_AT_ONCE),
                strict=True,
            )
        ]
    return torch.cat(parts)


class _Training:
    """The state of one training."""

    def __init__(self, config: VictimConfig, graphs: ComponentGraphs, seed: int) -> None:
        self.config, self.seed = config, seed
        self.model = build_victim(config, seed=seed)
        size = config.embedding_size
        draws = torch_generator(seed, "projector")
        self.projector = two_layers(size, size, size, draws)
        modules = nn.ModuleList([self.model, self.projector])
        self.optimizer = torch.optim.Adam(modules.parameters(), lr=config.learning_rate)
        self.train, self.y_G = _padded(graphs.train)
        self.judges = {"validation": _padded(graphs.validation)}
        if config.selection == "test":
            self.judges["test"] = _padded(graphs.test)
        self.estimator: GamblerHead | None = None
        self.answered_share: float | None = None

    def run(self, on_epoch: OnEpoch | None) -> TrainedVictim:
        config, history = self.config, []
        best_loss, best_epoch, best_state = float("inf"), 0, {}
        for epoch in range(config.epochs):
            if config.training == "augcl" and epoch == config.plain_epochs:
                self.estimator = self._fitted_estimator()
            is_contrastive = epoch < config.contrastive_epochs
            loss = self._contrastive_epoch(epoch) if is_contrastive else self._supervised_epoch(epoch)
            history.append({"loss": loss, **self._judged()})
            judged = history[-1][f"{config.selection}_loss"]
            if not is_contrastive and judged < best_loss:
                best_loss, best_epoch = judged, epoch + 1
                best_state = {name: value.clone() for name, value in self.model.state_dict().items()}
            if on_epoch is not None:
                on_epoch(epoch + 1, history[-1])
        self.model.load_state_dict(best_state)
        return TrainedVictim(self.model.eval(), best_epoch, history, self.answered_share)

    def _supervised_epoch(self, epoch: int) -> float:
        total, steps = 0.0, 0
        for graphs_B in self._batches(torch_generator(self.seed, "order", epoch)):
            part = self.train.take(graphs_B)
            logit_BC = self.model(part.adjacency_GNN.float(), part.x_GN1())
            total += self._step(functional.cross_entropy(logit_BC, self.y_G[graphs_B]), epoch)
            steps += 1
        return total / steps

    def _contrastive_epoch(self, epoch: int) -> float:
        draws, total, steps = torch_generator(self.seed, "views", epoch), 0.0, 0
        for graphs_B in self._batches(torch_generator(self.seed, "order", epoch)):
            own_BD, other_BD = self._views(graphs_B, draws)
            loss = affinity_loss(
                own_BD,
                other_BD,
                temperature=self.config.temperature,
                log_weights=self._log_weights(own_BD, other_BD),
                intra="none",
                positive_in_denominator=self.config.denominator_includes_positive,
            )
            total += self._step(loss, epoch)
            steps += 1
        return total / steps

    def _step(self, loss: Tensor, epoch: int) -> float:
        value = float(loss.detach())
        if value != value or value in (float("inf"), float("-inf")):
            raise NonFiniteLoss(epoch + 1, "loss")
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return value

    def _batches(self, draws: torch.Generator) -> Iterator[Tensor]:
        """Batches of one size; what is left over waits for another epoch's order, as in the original."""
        size = self.config.batch_size
        order_G = torch.randperm(len(self.train), generator=draws)
        return iter(torch.split(order_G[: len(order_G) // size * size], size))

    def _views(self, graphs_B: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Projections [B, D] of the graphs, and of the graphs without some nodes."""
        part = self.train.take(graphs_B)
        adjacency_BNN, x_BN1 = part.adjacency_GNN.float(), part.x_GN1()
        keep_BN1 = kept_nodes(part, self.config.drop_rate, draws)[:, :, None].float()
        dropped_BNN = adjacency_BNN * keep_BN1 * keep_BN1.transpose(1, 2)
        encoder = self.model.encoder
        return (
            self.projector(encoder(adjacency_BNN, x_BN1)),
            self.projector(encoder(dropped_BNN, x_BN1 * keep_BN1)),
        )

    def _log_weights(self, own_BD: Tensor, other_BD: Tensor) -> KeptLogWeights | None:
        if self.estimator is None:
            return None
        own_BD, other_BD = cosine_rows(own_BD.detach()), cosine_rows(other_BD.detach())
        return KeptLogWeights.of(self.estimator.abstention(own_BD, other_BD))

    def _fitted_estimator(self) -> GamblerHead:
        """The estimator of a pair's uncertainty, fitted to 2-means of each graph's similarities to others.

        It reads projections of unit length, and has cross-entropy first, as in `gcl.methods.augcl`.
        """
        config = self.config
        head = GamblerHead(config.embedding_size, torch_generator(self.seed, "estimator"))

        def views_of(number: int) -> Iterator[tuple[Views, torch.Generator]]:
            draws = torch_generator(self.seed, "fit_views", number)
            for graphs_B in self._batches(torch_generator(self.seed, "fit_order", number)):
                with torch.no_grad():
                    own_BD, other_BD = (cosine_rows(view) for view in self._views(graphs_B, draws))
                yield (own_BD, other_BD), draws

        self.answered_share = fit_head(
            head, config.affinity, views_of, num_passes=config.fit_passes, is_first=True
        )
        return head

    def _judged(self) -> dict[str, float]:
        found = {}
        for name, (graphs, y_G) in self.judges.items():
            logit_GC = logits_of(self.model, graphs)
            found[f"{name}_loss"] = float(functional.cross_entropy(logit_GC, y_G))
            if name == "validation":
                found[f"{name}_accuracy"] = float((logit_GC.argmax(1) == y_G).double().mean())
        return found


def kept_nodes(graphs: PaddedGraphs, drop_rate: float, draws: torch.Generator) -> Tensor:
    """Which nodes a view keeps, bool [G, N]: all but floor(rate n) of n, chosen uniformly.

    Args:
        graphs: whose nodes.
        drop_rate: in [0, 1).
        draws: CPU generator.
    """
    draw_GN = torch.rand(graphs.component_GN.shape, generator=draws)
    rank_GN = draw_GN.masked_fill(~graphs.is_node_GN, 2.0).argsort(1).argsort(1)
    num_dropped_G = (drop_rate * graphs.size_G.double()).floor().long()
    return (rank_GN >= num_dropped_G[:, None]) & graphs.is_node_GN


def _padded(part: LabelledGraphs) -> tuple[PaddedGraphs, Tensor]:
    return PaddedGraphs.of(part.graphs), torch.from_numpy(part.y_G)
