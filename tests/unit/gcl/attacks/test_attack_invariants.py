"""What holds for every attack, on trained victims: two depths, with and without existing edges as choices."""

import pytest
import torch
from scipy.sparse.csgraph import connected_components

from gcl.attacks.attack_config import AttackConfig, RlS2vConfig
from gcl.attacks.base import Target, judge
from gcl.attacks.run import run_attacks

CONFIG = AttackConfig(rl_s2v=RlS2vConfig(steps=150, evaluate_every=50, burn_in=10))


@pytest.fixture(scope="module")
def results(target):
    return run_attacks(target, CONFIG, seed=0)


def test_every_attack_reports(results):
    assert list(results) == ["random", "grad_argmax", "genetic", "rl_s2v", "rl_s2v_best", "exhaustive"]


def test_nothing_is_below_the_exhaustive_attack_or_above_the_clean_accuracy(target, results):
    accuracy = {name: result.accuracy(target.y_G) for name, result in results.items()}
    clean = target.is_right_G.double().mean().item()
    assert min(accuracy.values()) == accuracy["exhaustive"]
    assert max(accuracy.values()) <= clean
    assert accuracy["exhaustive"] < clean
    assert accuracy["rl_s2v_best"] <= accuracy["rl_s2v"]


def test_graph_by_graph_only_what_the_exhaustive_attack_fools_is_fooled(target, results):
    is_foolable_G = results["exhaustive"].predicted_G != target.y_G
    for result in results.values():
        assert not ((result.predicted_G != target.y_G) & ~is_foolable_G).any()


def test_components_stay_and_at_most_one_edge_is_added(target, results):
    before = target.graphs
    for result in results.values():
        after = before.with_edges(result.pair_G2)
        for old, new, size in zip(before.adjacency_GNN, after.adjacency_GNN, before.size_G, strict=True):
            assert int((new.int() - old.int()).sum()) in (0, 2)
            assert bool((new >= old).all())
            assert torch.equal(new, new.T)
            assert not new.diagonal().any()
            counts = [connected_components(a[:size, :size].numpy())[0] for a in (old, new)]
            assert counts[0] == counts[1]
            assert not new[size:].any()


def test_predictions_are_those_of_the_changed_graphs(target, results):
    for result in results.values():
        changed = target.graphs.with_edges(result.pair_G2)
        predicted_G = target.model(changed.adjacency_GNN.float(), changed.x_GN1()).argmax(1)
        assert torch.equal(predicted_G, result.predicted_G)


def test_misclassified_graphs_are_left_alone(target, results):
    assert not target.is_right_G.all()
    for result in results.values():
        assert (result.pair_G2[~target.is_right_G] == -1).all()


def test_the_seed_says_everything(target, results):
    again = run_attacks(target, CONFIG, seed=0)
    other = run_attacks(target, CONFIG, seed=1)
    for name, result in results.items():
        assert torch.equal(result.pair_G2, again[name].pair_G2)
        is_drawn = name not in ("grad_argmax", "exhaustive")
        assert torch.equal(result.pair_G2, other[name].pair_G2) is not is_drawn


def test_exhaustive_is_what_trying_every_edge_gives(target, results):
    """By loops, one graph at a time."""
    for graph in range(0, len(target.graphs), 9):
        if not target.is_right_G[graph]:
            continue
        one = target.graphs.take(torch.tensor([graph]))
        places = range(int(one.size_G[0]))
        allowed = [
            (u, v)
            for u in places
            for v in places
            if u < v
            and one.component_GN[0, u] == one.component_GN[0, v]
            and not (target.exclude_existing and one.adjacency_GNN[0, u, v])
        ]
        fooling = []
        for pair in allowed:
            new = one.with_edges(torch.tensor([pair]))
            logits = target.model(new.adjacency_GNN.float(), new.x_GN1())
            if logits.argmax() != target.y_G[graph]:
                fooling.append(list(pair))
        expected = fooling[0] if fooling else [-1, -1]
        assert results["exhaustive"].pair_G2[graph].tolist() == expected


def test_existing_edges_are_chosen_only_where_they_may_be(target, results):
    u, v = results["random"].pair_G2[target.is_right_G].unbind(1)
    adjacency = target.graphs.adjacency_GNN[target.is_right_G]
    is_there = adjacency[torch.arange(len(u)), u, v] & (u >= 0)
    assert bool(is_there.any()) is not target.exclude_existing


@pytest.mark.parametrize("pair", [(0, 0), (0, 4), (0, -1), (0, 1), (3, 5)], ids=str)
def test_choices_outside_the_threat_model_are_refused(pair, padded, counts_edges):
    graphs = padded((5, [(0, 1), (1, 2), (3, 4)]), (6, []))
    target = Target(counts_edges(1.0, 100.0), graphs, torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="an attack chose an edge between components, or"):
        judge(target, torch.tensor([pair, (-1, -1)]))
