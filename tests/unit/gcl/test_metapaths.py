"""Adjacencies of metapaths against products of dense matrices, and what people may write for a metapath."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from gcl import metapaths
from gcl.hetero_findings import InvalidHetero
from gcl.hetero_graph import EdgeType, HeteroGraph, Metapath
from gcl.metapath_steps import MetapathBroken, MetapathPlan, Step, name_of, parse_metapath, steps_of_triples
from gcl.metapaths import (
    MetapathsConfig,
    _drawn_step,
    build_metapaths,
    chosen_metapaths,
    predicted_entries,
    step_matrix,
)

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")
IN = ("paper", "in", "venue")
RELATIONS = [WRITES, CITES, IN]
SIZES = {"author": 12, "paper": 30, "venue": 4}


def random_graph(seed: int = 0) -> HeteroGraph:
    draws, edges = np.random.default_rng(seed), {}
    for relation in RELATIONS:
        shape = (SIZES[relation[0]], SIZES[relation[2]])
        matrix = sp.csr_matrix(draws.random(shape) < 0.12)
        edges[relation] = (
            np.repeat(np.arange(shape[0]), np.diff(matrix.indptr)),
            matrix.indices.astype(np.int64),
        )
    return HeteroGraph(target="author", num_nodes=SIZES, edges=edges)


def dense(graph: HeteroGraph, relation: EdgeType) -> np.ndarray:
    matrix = np.zeros((graph.num_nodes[relation[0]], graph.num_nodes[relation[2]]))
    matrix[graph.edges[relation]] = 1
    return matrix


def built(graph: HeteroGraph, text: str, **options: Any) -> Metapath:
    name, steps = parse_metapath(text, RELATIONS)
    plan = MetapathPlan(name or name_of(steps), steps, **{"self_loops": "add"} | options)
    (metapath,) = build_metapaths(graph, [plan], max_entries=10**6, seed=0)
    return metapath


@pytest.mark.parametrize(
    "text",
    [
        "author-paper-author",
        "author-paper-venue-paper-author",
        "author >writes> paper >cites> paper <writes< author",
        "author >writes> paper <cites< paper <writes< author",
        "author>writes>paper>cites>paper<cites<paper<writes<author",
    ],
)
@pytest.mark.parametrize("weight", ["binary", "count"])
def test_adjacency_is_the_product_of_the_relations(text: str, weight: Any) -> None:
    graph = random_graph()
    _, steps = parse_metapath(text, RELATIONS)
    product = np.eye(SIZES["author"])
    for step in steps:
        matrix = dense(graph, step.relation)
        product = product @ (matrix.T if step.backward else matrix)
    np.fill_diagonal(product, np.where(np.diag(product) > 0, np.diag(product), 1))
    found = built(graph, text, weight=weight).adjacency_NN
    np.testing.assert_array_equal(found.toarray(), product if weight == "count" else product > 0)
    assert found.dtype == np.float32
    assert found.has_sorted_indices


def test_counts_multiply_the_weights_of_edges() -> None:
    graph = HeteroGraph(
        target="author",
        num_nodes={"author": 2, "paper": 2, "venue": 1},
        edges={WRITES: (np.array([0, 0, 1]), np.array([0, 1, 1]))},
        weights={WRITES: np.array([2.0, 3.0, 5.0], np.float32)},
    )
    found = built(graph, "author-paper-author", weight="count").adjacency_NN.toarray()
    np.testing.assert_array_equal(found, [[2 * 2 + 3 * 3, 3 * 5], [3 * 5, 5 * 5]])


@pytest.mark.parametrize(("policy", "diagonal"), [("keep", [1, 0]), ("add", [1, 1]), ("remove", [0, 0])])
def test_self_loops_are_kept_added_or_removed(policy: Any, diagonal: list[int]) -> None:
    """The second author has written nothing; removed, both are joined to nobody."""
    edges = {WRITES: (np.array([0]), np.array([0]))}
    graph = HeteroGraph(target="author", num_nodes={"author": 2, "paper": 1, "venue": 1}, edges=edges)
    if policy == "add":
        found = built(graph, "author-paper-author", self_loops=policy).adjacency_NN
        assert found.diagonal().tolist() == diagonal
        return
    with pytest.raises(InvalidHetero) as caught:
        built(graph, "author-paper-author", self_loops=policy)
    (finding,) = caught.value.findings
    assert (finding.code, finding.num_rows) == ("H13", 2 - sum(diagonal))


def test_predicted_entries_are_never_fewer_than_there_are() -> None:
    for seed in range(20):
        graph = random_graph(seed)
        left, right = step_matrix(graph, Step(WRITES)), step_matrix(graph, Step(IN))
        assert (left @ right).nnz <= predicted_entries(left, right) <= 12 * 4
    hub = sp.csr_matrix(np.ones((50, 1)))
    assert predicted_entries(hub, sp.csr_matrix(hub.T)) == 2500


def test_budget_counts_products_on_the_way_too() -> None:
    """Every author is at the one venue: the halves are small, an asymmetric path meets the whole product."""
    num_authors = 200
    edges = {
        WRITES: (np.arange(num_authors), np.arange(num_authors)),
        IN: (np.arange(num_authors), np.zeros(num_authors, np.int64)),
        CITES: (np.arange(num_authors), np.zeros(num_authors, np.int64)),
    }
    sizes = {"author": num_authors, "paper": num_authors, "venue": 1}
    graph = HeteroGraph(target="author", num_nodes=sizes, edges=edges)
    _, steps = parse_metapath("author-paper-venue-paper-author", RELATIONS)
    plan = MetapathPlan("APVPA", steps)
    with pytest.raises(InvalidHetero, match="APVPA: 40000 entries"):
        list(build_metapaths(graph, [plan], max_entries=39_999, seed=0))
    assert next(build_metapaths(graph, [plan], max_entries=40_000, seed=0)).adjacency_NN.nnz == 40_000
    text = "author >writes> paper >in> venue <in< paper >cites> paper <writes< author"
    around = MetapathPlan("around", parse_metapath(text, RELATIONS)[1])
    with pytest.raises(InvalidHetero, match="around: 40000 entries"):
        list(build_metapaths(graph, [around], max_entries=39_999, seed=0))


def test_fanout_keeps_small_neighbourhoods_whole_and_samples_large_ones() -> None:
    graph = random_graph()
    whole = built(graph, "author-paper-venue-paper-author").adjacency_NN
    counts = built(graph, "author-paper-venue-paper-author", weight="count").adjacency_NN
    walks = np.asarray(counts.sum(axis=1)).ravel()
    found = built(graph, "author-paper-venue-paper-author", max_fanout=3).adjacency_NN
    assert (found.toarray() <= whole.toarray()).all(), "no neighbour that is none"
    off_diagonal = found.copy()
    off_diagonal.setdiag(0)
    assert off_diagonal.sum(axis=1).max() <= 3
    few = walks <= 3
    np.testing.assert_array_equal(found[few].toarray(), whole[few].toarray())
    again = built(graph, "author-paper-venue-paper-author", max_fanout=3).adjacency_NN
    np.testing.assert_array_equal(found.toarray(), again.toarray())
    assert (walks > 3).any()


@pytest.mark.parametrize("policy", ["keep", "add", "remove"])
@pytest.mark.parametrize("weight", ["binary", "count"])
@pytest.mark.parametrize(
    "text",
    [
        "author-paper-venue-paper-author",
        "author >writes> paper >cites> paper <writes< author",
        "author >knows> author",
        "author >knows> author <knows< author >knows> author",
    ],
)
def test_a_node_joins_itself_with_a_fanout_as_it_does_without(
    text: str, weight: Any, policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metapaths, "_HALF_WALKS_AT_A_TIME", 7)  # a few rows at a time
    graph, draws, knows = random_graph(), np.random.default_rng(1), ("author", "knows", "author")
    edges = {**graph.edges, knows: np.nonzero(draws.random((12, 12)) < 0.4)}
    weights = {relation: draws.random(len(src)).astype("f") + 0.5 for relation, (src, _) in edges.items()}
    graph = replace(graph, edges=edges, weights=weights)
    _, steps = parse_metapath(text, list(edges))

    def diagonal(max_fanout: int | None) -> np.ndarray:
        plan = MetapathPlan("M", steps, policy, weight, max_fanout)
        half = metapaths._half(graph, plan, 10**6)  # rows may be empty here, which `build_metapaths` refuses
        return metapaths._finished(metapaths._adjacency(graph, plan, half, seed=0), plan).diagonal()

    assert (diagonal(None) > 0).any() == (policy != "remove")
    for max_fanout in (1, 3):
        np.testing.assert_allclose(diagonal(max_fanout), diagonal(None), rtol=1e-5)


def test_drawn_walks_are_uniform_over_walks() -> None:
    """Author 0 has four walks to itself, three to author 1 and one to author 2."""
    edges = {WRITES: (np.array([0, 0, 0, 0, 1, 1, 1, 2]), np.array([0, 1, 2, 3, 0, 1, 2, 3]))}
    graph = HeteroGraph(target="author", num_nodes={"author": 3, "paper": 4, "venue": 1}, edges=edges)
    plan = MetapathPlan("APA", parse_metapath("author-paper-author", [WRITES])[1], "keep", "count", 7)
    drawn = [
        metapath.adjacency_NN.toarray()[0]
        for seed in range(400)
        for metapath in build_metapaths(graph, [plan], max_entries=100, seed=seed)
    ]
    np.testing.assert_allclose(np.mean(drawn, axis=0), [4, 3, 1], atol=0.25)
    assert {row[0] for row in drawn} == {4}, "walks home are counted, not drawn"


def test_drawn_walks_honour_the_weights_of_edges() -> None:
    """Expected counts are the whole ones: three walks of weights 4, 9 and 3, in a fanout of two."""
    graph = HeteroGraph(
        target="author",
        num_nodes={"author": 2, "paper": 2, "venue": 1},
        edges={WRITES: (np.array([0, 0, 1]), np.array([0, 1, 1]))},
        weights={WRITES: np.array([2.0, 3.0, 1.0], np.float32)},
    )
    whole = built(graph, "author-paper-author", weight="count").adjacency_NN.toarray()
    np.testing.assert_array_equal(whole, [[13, 3], [3, 1]])
    _, steps = parse_metapath("author-paper-author", [WRITES])
    for fanout in (2, 3):
        plan = MetapathPlan("APA", steps, "keep", "count", fanout)
        drawn = [
            metapath.adjacency_NN.toarray()
            for seed in range(600)
            for metapath in build_metapaths(graph, [plan], max_entries=100, seed=seed)
        ]
        np.testing.assert_allclose(np.mean(drawn, axis=0), whole, rtol=0.1)
        assert {adjacency[0, 0] for adjacency in drawn} == {13}


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_drawn_steps_never_leave_the_row_or_end_where_nothing_goes_on(uniform: float) -> None:
    """A row of few walks after one of 1e17 is lost in a sum over all rows; dead ends stand at its edges."""
    matrix = sp.csr_matrix(
        (np.ones(6, np.float32), np.array([0, 1, 2, 3, 4, 0]), np.array([0, 1, 5, 6])), shape=(3, 5)
    )
    ahead = np.array([1e17, 0.0, 1.0, 1.0, 0.0])
    at_W = np.array([1, 1, 0, 2])
    found = _drawn_step(matrix, ahead, at_W, np.full(4, uniform))
    assert found[:2].tolist() == [3 if uniform >= 0.5 else 2] * 2
    assert found[2:].tolist() == [0, 0]


def test_a_budget_holds_for_a_fanout_too() -> None:
    with pytest.raises(InvalidHetero, match="H12"):
        _, steps = parse_metapath("author-paper-author", RELATIONS)
        plan = MetapathPlan("APA", steps, max_fanout=5)
        list(build_metapaths(random_graph(), [plan], max_entries=59, seed=0))


def test_metapaths_are_written_by_types_where_that_is_plain() -> None:
    name, steps = parse_metapath("mine = author-paper-venue-paper-author", RELATIONS)
    assert name == "mine"
    assert [(step.relation[1], step.backward) for step in steps] == [
        ("writes", False), ("in", False), ("in", True), ("writes", True),
    ]  # fmt: skip
    hyphened = [("on-line-user", "buys", "item")]
    assert len(parse_metapath("on-line-user-item-on-line-user", hyphened)[1]) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("paper-paper", r"paper >cites> paper or paper <cites< paper: write which"),
        ("author-venue-author", "no relation joins author and venue"),
        ("author-book-author", "'author-book-author' is no path through node types; there are: author"),
        ("author", "no path"),
        ("", "no path"),
        ("author <writes< paper", "there is no relation paper/writes/author"),
        ("author >reads> paper", "there is no relation author/reads/paper"),
    ],
)
def test_what_a_metapath_cannot_mean_is_said(text: str, told: str) -> None:
    with pytest.raises(MetapathBroken, match=told):
        parse_metapath(text, RELATIONS)


def test_reverse_relations_go_by_their_names() -> None:
    for reverse in ("rev_writes", "writes-rev", "written_by"):
        declared = {("paper", "written_by", "author"): WRITES}
        steps = steps_of_triples([WRITES, ("paper", reverse, "author")], RELATIONS, declared)
        assert steps == (Step(WRITES), Step(WRITES, backward=True))
    with pytest.raises(MetapathBroken, match="no relation paper/rev_reads/author"):
        steps_of_triples([("paper", "rev_reads", "author")], RELATIONS, {})


@pytest.mark.parametrize("reverse", ["rev_writes", "writes-rev", "written_by"])
def test_reverse_names_walk_backward_in_written_paths_too(reverse: str) -> None:
    declared = {("paper", "written_by", "author"): WRITES}
    there_and_back = parse_metapath("author-paper-author", RELATIONS)
    for text in (f"author >writes> paper >{reverse}> author", f"author <{reverse}< paper <writes< author"):
        assert parse_metapath(text, RELATIONS, declared) == there_and_back
    with pytest.raises(MetapathBroken, match="no relation author/rev_writes/paper; there are: author/writes"):
        parse_metapath("author >rev_writes> paper", RELATIONS)


def test_configuration_chooses_among_the_sources_own_and_adds_to_them() -> None:
    apa = MetapathPlan("APA", parse_metapath("author-paper-author", RELATIONS)[1], max_fanout=4, nnz=7)
    config = MetapathsConfig(paths=("APA", "author-paper-venue-paper-author"), weight="count")
    plans = chosen_metapaths(config, [apa], RELATIONS, target="author")
    assert [(plan.name, plan.weight, plan.max_fanout) for plan in plans] == [
        ("APA", "count", 4), ("APVPA", "count", None),
    ]  # fmt: skip
    assert plans[0].nnz is None, "another weighting has other entries"
    assert chosen_metapaths(MetapathsConfig(), [apa], RELATIONS, target="author") == (apa,)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "the source declares no metapaths: set metapaths.paths"),
        ({"paths": ("author-paper",)}, "AP: goes from author to paper, not from author to author"),
        ({"paths": ("author-book",)}, "'author-book' is no path"),
        ({"paths": ("author-paper-author", "author-paper-author")}, "two metapaths are called APA"),
        ({"paths": ("author-paper-author",), "edges": "PAP"}, "metapaths.edges is 'PAP', none of union, APA"),
    ],
)
def test_choices_that_do_not_fit_are_refused(config: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidHetero, match="H11") as caught:
        chosen_metapaths(MetapathsConfig(**config), [], RELATIONS, target="author")
    assert told in str(caught.value)
