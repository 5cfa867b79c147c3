import sys

import numpy as np
import pytest

from gcl.clustering.choice import Evidence
from gcl.plots import (
    plot_categories,
    plot_cluster_sizes,
    plot_evidence,
    plot_losses,
    plot_reliability,
    plot_risk_coverage,
    plot_stage_times,
    plot_values,
    project,
)
from gcl.row_blocks import ArrayBlocks

RNG = np.random.default_rng(0)
Z_ND = RNG.normal(size=(60, 5)).astype("f")
CURVE = (np.linspace(0.1, 1, 10), np.linspace(0, 0.3, 10))
PROJECTION = project(Z_ND, seed=0)

PLOTS = {
    "clusters": lambda: plot_categories(PROJECTION, np.arange(60) % 4, name="clusters", title="By cluster"),
    "many": lambda: plot_categories(PROJECTION, np.arange(60) % 30 - 1, name="many", title="Many"),
    "uncertainty": lambda: plot_values(
        PROJECTION, np.where(np.arange(60) % 7, np.arange(60.0), np.nan), name="u", title="U", label="u"
    ),
    "all_missing": lambda: plot_values(PROJECTION, np.full(60, np.nan), name="u", title="U", label="u"),
    "losses": lambda: plot_losses(np.arange(5), {"total": np.arange(5.0), "b": np.ones(5), "c": np.ones(5)}),
    "no_losses": lambda: plot_losses(np.arange(0), {}),
    "sizes": lambda: plot_cluster_sizes(np.arange(60) % 7),
    "evidence": lambda: plot_evidence([Evidence(k, "silhouette", k / 10) for k in (4, 2, 3)], 3),
    "risk": lambda: plot_risk_coverage(
        {"risk_coverage_confidence": CURVE, "risk_coverage_uncertainty": CURVE}
    ),
    "reliability": lambda: plot_reliability({"reliability": CURVE, "reliability_uncalibrated": CURVE}),
    "times": lambda: plot_stage_times({"ingest": 0.5, "train": 12.0}, cached=["ingest"]),
}


@pytest.mark.parametrize("name", PLOTS)
def test_picture_is_the_same_png_twice_without_date_or_software(name):
    first, second = PLOTS[name](), PLOTS[name]()
    assert first.png == second.png
    assert first.png.startswith(b"\x89PNG") and len(first.png) > 2000
    assert not any(chunk in first.png for chunk in (b"tEXt", b"tIME", b"iTXt"))
    assert first.caption and first.title


def test_drawing_leaves_no_global_state():
    import matplotlib

    had_pyplot, settings = "matplotlib.pyplot" in sys.modules, matplotlib.rcParams.copy()
    PLOTS["sizes"]()
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot
    assert matplotlib.rcParams.copy() == settings


def test_curves_that_are_absent_give_no_picture():
    assert plot_risk_coverage({"reliability": CURVE}) is None
    assert plot_reliability({}) is None


def test_projection_keeps_the_sample_and_says_so():
    projection = project(Z_ND, seed=1, max_nodes=20)
    assert projection.xy_S2.shape == (20, 2)
    assert (np.diff(projection.nodes) > 0).all()
    assert "20 of 60 nodes" in projection.how


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_projection_of_rows_read_in_blocks_is_that_of_the_array(method):
    whole, read = (project(z, method=method, seed=1, max_nodes=20) for z in (Z_ND, ArrayBlocks(Z_ND)))
    assert whole.xy_S2.tobytes() == read.xy_S2.tobytes() and whole.how == read.how


def test_projection_finds_the_widest_direction():
    z_ND = RNG.normal(size=(50, 4)) * [0.1, 10, 0.1, 1]
    xy_S2 = project(z_ND, seed=0).xy_S2
    assert abs(np.corrcoef(xy_S2[:, 0], z_ND[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(xy_S2[:, 1], z_ND[:, 3])[0, 1]) > 0.98


def test_projection_of_one_dimension_lies_on_a_line():
    assert (project(Z_ND[:, :1], seed=0).xy_S2[:, 1] == 0).all()


def test_tsne_is_seeded():
    first, second = (project(Z_ND, method="tsne", seed=4) for _ in range(2))
    assert first.xy_S2.tobytes() == second.xy_S2.tobytes()
    assert "t-SNE" in first.how
