import numpy as np
import pytest

from gcl.clustering.choice import Evidence, choose_num_clusters
from gcl.clustering.config import ClusterConfig
from gcl.clustering.fit import cluster_embeddings


def table(**measures):
    return [Evidence(k, name, value) for name, values in measures.items() for k, value in values.items()]


@pytest.mark.parametrize("planted", [3, 5, 8])
def test_planted_number_of_clusters_is_found(planted):
    rng = np.random.default_rng(planted)
    centre_KD = np.linalg.qr(rng.normal(size=(24, 24)))[0][:planted]
    y_N = rng.integers(planted, size=400)
    z_ND = (centre_KD[y_N] + 0.1 * rng.normal(size=(400, 24))).astype("f")
    found = cluster_embeddings(z_ND, ClusterConfig(num_clusters="2..12", num_stability_runs=3), seed=0)
    assert found.num_clusters == planted
    assert {item.measure for item in found.evidence} >= {"stability", "silhouette", "inertia", "inertia_knee"}
    assert {item.num_clusters for item in found.evidence} == set(range(2, 13))


def test_unstable_number_is_not_eligible_however_good():
    evidence = table(stability={2: 0.95, 3: 0.9, 4: 0.5}, silhouette={2: 0.1, 3: 0.2, 4: 0.9})
    assert choose_num_clusters(evidence, stability_slack=0.1)[0] == 3


def test_mean_rank_overrules_a_single_measure():
    """The silhouette alone would take 2; knee and modularity agree on 3."""
    evidence = table(
        silhouette={2: 0.9, 3: 0.8, 4: 0.1},
        inertia_knee={2: 0.1, 3: 0.5, 4: 0.3},
        modularity={2: 0.2, 3: 0.6, 4: 0.5},
    )
    chosen, notes = choose_num_clusters(evidence, stability_slack=0.1)
    assert chosen == 3
    assert notes == ["silhouette alone would have chosen 2 clusters instead of 3"]


def test_tie_goes_to_fewer_clusters():
    evidence = table(silhouette={2: 0.5, 3: 0.4}, modularity={2: 0.4, 3: 0.5})
    assert choose_num_clusters(evidence, stability_slack=0.1)[0] == 2


def test_conductance_has_no_vote():
    evidence = table(silhouette={2: 0.1, 3: 0.5}, conductance={2: 0.0, 3: 0.9})
    assert choose_num_clusters(evidence, stability_slack=0.1)[0] == 3
