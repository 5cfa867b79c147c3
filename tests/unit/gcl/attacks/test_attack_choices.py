"""Each attack by itself, on victims whose answers are known."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from gcl.attacks.attack_config import AttackConfig, GeneticConfig, RlS2vConfig
from gcl.attacks.base import Outcomes, Target
from gcl.attacks.genetic import Genetic
from gcl.attacks.rl_s2v import RlS2v
from gcl.attacks.run import ATTACKS, run_attacks
from gcl.attacks.simple import Exhaustive, GradArgmax, RandomSampling
from gcl.attacks.structure2vec import GraphClassifier

SQUARE = (4, [(0, 1), (1, 2), (2, 3), (0, 3)])
TRIANGLE = (3, [(0, 1), (1, 2), (0, 2)])
PATH = (12, [(node, node + 1) for node in range(11)])


def planted(graphs, fooling, *, loss=None):
    """A target in which of each graph's edges one alone fools the victim, as the table says it."""
    flips_GNN = torch.zeros(graphs.adjacency_GNN.shape, dtype=torch.bool)
    for graph, (u, v) in enumerate(fooling):
        flips_GNN[graph, u, v] = flips_GNN[graph, v, u] = True
    target = Target(_Answers(), graphs, torch.zeros(len(graphs), dtype=torch.int64))
    loss_GNN = torch.ones(flips_GNN.shape) if loss is None else loss
    loss_GNN = loss_GNN.masked_fill(~target.admissible_GNN, torch.nan)
    target.__dict__["outcomes"] = Outcomes(flips_GNN, loss_GNN)  # where the cached property keeps it
    return target


class _Answers(torch.nn.Module):
    def forward(self, adjacency_BNN, x_BN1):
        return torch.tensor([[1.0, 0.0]]).expand(len(x_BN1), 2)


def test_every_configurable_attack_exists():
    assert set(ATTACKS) == set(AttackConfig().attacks)
    with pytest.raises(ValueError, match="an attack is named twice"):
        AttackConfig(attacks=("random", "random"))


def test_random_choice_is_uniform_over_admissible_pairs(padded):
    graphs = padded(*[(5, [(0, 1), (1, 2), (2, 3)])] * 6000)  # node 4 is a component of its own
    chosen = RandomSampling().choose(planted(graphs, []), seed=0)["random"]
    counts = torch.zeros(5, 5)
    for u, v in chosen.tolist():
        counts[u, v] += 1
    assert {(u, v) for u, v in counts.nonzero().tolist()} == {(0, 2), (0, 3), (1, 3)}
    assert (counts[counts > 0] - 2000).abs().max() < 5 * (6000 * 2 / 9) ** 0.5


def test_attacks_end_where_no_right_graph_has_a_choice(padded):
    graphs = padded(TRIANGLE, SQUARE)  # the triangle is right and complete, the square is wrong
    target = Target(_Answers(), graphs, torch.tensor([0, 1]))
    config = AttackConfig(genetic=GeneticConfig(rounds=2), rl_s2v=RlS2vConfig(steps=2, burn_in=1))
    target.__dict__["model"] = GraphClassifier(
        embedding_size=4,
        num_rounds=1,
        hidden_size=3,
        num_classes=2,
        generator=torch.Generator().manual_seed(0),
    )
    target.__dict__["clean_G"] = torch.tensor([0, 0])
    for name, found in run_attacks(target, config, seed=0).items():
        assert found.pair_G2.tolist() == [[-1, -1]] * 2, name
        assert found.predicted_G.tolist() == [0, 0]


def test_a_graph_without_choices_gets_no_edge(padded):
    graphs = padded(TRIANGLE, SQUARE)
    target = planted(graphs, [])
    attacks = [RandomSampling(), GradArgmax(), Exhaustive(), Genetic(GeneticConfig())]
    attacks.append(RlS2v(RlS2vConfig(steps=2, burn_in=1)))
    target.__dict__["model"] = GraphClassifier(
        embedding_size=4, num_rounds=2, hidden_size=4, num_classes=2, generator=torch.Generator()
    )
    target.__dict__["is_right_G"] = torch.tensor([True, True])
    for attack in attacks:
        for pair_G2 in attack.choose(target, seed=0).values():
            assert pair_G2[0].tolist() == [-1, -1]


def test_only_graphs_without_choices_can_be_attacked_too(padded):
    target = planted(padded(TRIANGLE), [])
    for attack in (Genetic(GeneticConfig()), RlS2v(RlS2vConfig(steps=2)), RandomSampling(), Exhaustive()):
        for pair_G2 in attack.choose(target, seed=0).values():
            assert pair_G2.tolist() == [[-1, -1]]


def gradient_by_loops(model, graphs, label):
    """d NLL(label) / d A_uv by central differences, one entry at a time."""
    size, step = graphs.adjacency_GNN.shape[1], 1e-6
    found = torch.zeros(size, size, dtype=torch.float64)
    for u in range(size):
        for v in range(size):
            values = []
            for sign in (1, -1):
                adjacency = graphs.adjacency_GNN.double().clone()
                adjacency[0, u, v] += sign * step
                logit = model.double()(adjacency, graphs.x_GN1(torch.float64))
                values.append(functional.cross_entropy(logit, torch.tensor([label])).item())
            found[u, v] = (values[0] - values[1]) / (2 * step)
    return found


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_gradargmax_takes_the_entry_with_the_most_negative_gradient(padded, seed):
    graphs = padded((8, [(0, 1), (1, 2), (2, 3), (3, 4), (1, 4), (5, 6), (6, 7)]))
    draws = torch.Generator().manual_seed(seed)
    model = GraphClassifier(embedding_size=8, num_rounds=3, hidden_size=8, num_classes=3, generator=draws)
    with torch.no_grad():
        model.encoder.message_DD.mul_(0.3)
    target = Target(model, graphs, torch.tensor([1]))
    candidates = GradArgmax().candidates(target)
    assert candidates[1].tolist() == [[-1, -1]], "the true class is no aim"
    for label in (0, 2):
        gradient = gradient_by_loops(model, graphs, label)
        model.float()
        score = gradient.masked_fill(~target.admissible_GNN[0] | (gradient > 0), torch.inf)
        least = score.min()
        u, v = candidates[label][0].tolist()
        if least.isinf():
            assert (u, v) == (-1, -1)
        else:
            assert score[u, v] == pytest.approx(least.item(), rel=1e-4, abs=1e-8)


def test_gradargmax_breaks_ties_by_position_and_skips_what_would_not_help(padded, counts_edges):
    """Every entry has the same gradient; only where an edge more leads to the other class it is negative."""
    graphs = padded(PATH)
    rising = Target(counts_edges(1.0, 11.5), graphs, torch.tensor([0]))
    assert GradArgmax().choose(rising, seed=0)["grad_argmax"].tolist() == [[0, 2]]
    falling = Target(counts_edges(-1.0, -11.5), graphs, torch.tensor([1]))
    assert GradArgmax().choose(falling, seed=0)["grad_argmax"].tolist() == [[0, 2]]
    away = Target(counts_edges(-1.0, 0.0), graphs, torch.tensor([0]))
    assert GradArgmax().candidates(away)[1].tolist() == [[-1, -1]]


@pytest.mark.parametrize("num_rounds", [2, 3])
def test_gradargmax_does_not_let_round_off_choose(padded, num_rounds):
    """In a ring all pairs at one distance have one gradient, in exact arithmetic: the first one is taken."""
    graphs = padded(*[(size, [(node, (node + 1) % size) for node in range(size)]) for size in (7, 11, 13)])
    for seed in range(5):
        model = GraphClassifier(
            embedding_size=16,
            num_rounds=num_rounds,
            hidden_size=8,
            num_classes=2,
            generator=torch.Generator().manual_seed(seed),
        )
        for label in (0, 1):
            target = Target(model, graphs, torch.full((3,), 1 - label))
            for u, v in GradArgmax().candidates(target)[label].tolist():
                assert (u, v) == (-1, -1) or (u == 0 and v <= 6)


def test_gradargmax_leaves_a_graph_that_its_candidates_do_not_flip(padded, counts_edges):
    target = Target(counts_edges(1.0, 13.0), padded(PATH), torch.tensor([0]))
    assert GradArgmax().candidates(target)[1].tolist() == [[0, 2]]
    assert GradArgmax().choose(target, seed=0)["grad_argmax"].tolist() == [[-1, -1]]


def test_exhaustive_takes_the_first_that_works(padded):
    target = planted(padded(PATH, PATH), [(3, 9), (2, 11)])
    target.outcomes.flips_GNN[1, 4, 8] = target.outcomes.flips_GNN[1, 8, 4] = True
    assert Exhaustive().choose(target, seed=0)["exhaustive"].tolist() == [[3, 9], [2, 11]]


def test_genetic_climbs_the_loss(padded):
    """The last round's best of four is far above a first draw's: selection carries over."""
    place = torch.arange(12.0)
    slope_NN = 20.0 - (place[:, None] - 2).abs() - (place[None] - 10).abs()
    loss_GNN = torch.maximum(slope_NN, slope_NN.T).expand(200, 12, 12)
    target = planted(padded(*[PATH] * 200), [], loss=loss_GNN)
    mean = []
    for rounds in (1, 12):
        config = GeneticConfig(population=4, rounds=rounds)
        u, v = Genetic(config).choose(target, seed=0)["genetic"].unbind(1)
        mean.append(loss_GNN[torch.arange(200), u, v].mean().item())
    assert mean[1] > mean[0] + 0.7


def test_genetic_keeps_what_worked_first_and_else_the_largest_loss(padded):
    graphs = padded(PATH, PATH)
    loss = torch.ones(2, 12, 12)
    loss[1, 5, 7] = loss[1, 7, 5] = 9.0
    target = planted(graphs, [(0, 2)], loss=loss)
    config = GeneticConfig(population=600, rounds=1)  # every edge is drawn
    chosen = Genetic(config).choose(target, seed=0)["genetic"]
    assert [sorted(pair) for pair in chosen.tolist()] == [[0, 2], [5, 7]]


@pytest.mark.parametrize("rates", [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)], ids=str)
def test_genetic_changes_stay_admissible(padded, rates):
    graphs = padded((9, [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7), (7, 8)]), SQUARE)
    target = planted(graphs, [], loss=torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(0)))
    config = GeneticConfig(population=30, rounds=6, crossover_rate=rates[0], mutation_rate=rates[1])
    seen = []
    inner = Outcomes(target.outcomes.flips_GNN, _Watched(target.outcomes.loss_GNN, seen))
    target.__dict__["outcomes"] = inner
    Genetic(config).choose(target, seed=0)
    assert len(seen) == 6
    assert all(bool(loss.isfinite().all()) for loss in seen), "NaN: a choice that there is not"
    assert any(not torch.equal(first, loss) for first, loss in pairwise(seen))


class _Watched:
    """A table of losses that remembers what it was asked."""

    def __init__(self, loss_GNN, seen):
        self.loss_GNN, self.seen = loss_GNN, seen

    def __getitem__(self, places):
        self.seen.append(self.loss_GNN[places])
        return self.seen[-1]


def test_rl_s2v_finds_the_one_edge_that_works(padded):
    """Both decisions must be right: either end first, then the other."""
    graphs = padded((7, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (2, 6)]))  # no two nodes are alike
    target = planted(graphs, [(0, 5)])
    config = RlS2vConfig(steps=400, evaluate_every=400, copy_every=20, learning_rate=5e-3, num_rounds=3)
    for seed in range(4):
        chosen = RlS2v(config).choose(target, seed=seed)
        assert sorted(chosen["rl_s2v"][0].tolist()) == [0, 5]


def test_rl_s2v_reports_the_last_evaluation_and_apart_from_it_the_best(padded, monkeypatch):
    graphs = padded(PATH, PATH)
    target = planted(graphs, [(0, 2), (0, 3)])
    answers = iter([[[0, 4], [0, 4]], [[0, 2], [0, 4]], [[0, 2], [0, 5]], [[0, 6], [0, 6]]])
    import gcl.attacks.rl_s2v as module

    monkeypatch.setattr(module._Learning, "_greedy", lambda self: torch.tensor(next(answers)))
    chosen = RlS2v(RlS2vConfig(steps=7, evaluate_every=2, burn_in=1)).choose(target, seed=0)
    assert chosen["rl_s2v"].tolist() == [[0, 6], [0, 6]]
    assert chosen["rl_s2v_best"].tolist() == [[0, 2], [0, 4]], "the first of equally good ones"


def test_rl_s2v_replays_uniformly_and_forgets_the_oldest(padded):
    from gcl.attacks.rl_s2v import _Learning

    target = planted(padded(PATH, SQUARE), [])
    config = RlS2vConfig(batch_size=40, replay_size=100)
    learning = _Learning(config, target, torch.arange(2), seed=0)
    for _ in range(3):
        learning._play()
    newest = learning.episode_R3[80:].clone(), learning.episode_R3[:20].clone()
    graph_R, first_R, second_R = learning.episode_R3.unbind(1)
    assert learning.admissible_GNN[graph_R, first_R, second_R].all()
    assert set(graph_R.tolist()) == {0, 1}
    learning._play()
    assert torch.equal(learning.episode_R3[80:], newest[0])
    assert torch.equal(learning.episode_R3[:20], newest[1])
