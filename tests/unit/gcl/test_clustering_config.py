import subprocess
import sys

import pytest
from pydantic import ValidationError

from gcl.clustering.config import ClusterConfig


@pytest.mark.parametrize("value", [1, 7, "auto", "classes", "2..20", "5..5"])
def test_num_clusters_grammar_accepts(value):
    assert ClusterConfig(num_clusters=value).num_clusters == value


@pytest.mark.parametrize(
    "value", [0, -3, "7", "1..5", "9..3", "2..", "2...9", "2..9 ", "many", "02..9", 10**7]
)
def test_num_clusters_grammar_refuses(value):
    with pytest.raises(ValidationError):
        ClusterConfig(num_clusters=value)


def test_grid_holds_every_number_of_a_short_range():
    assert ClusterConfig(num_clusters="3..8").grid(1000) == (3, 4, 5, 6, 7, 8)


def test_grid_of_a_long_range_keeps_both_ends_and_its_size():
    grid = ClusterConfig(num_clusters="2..500").grid(10_000)
    assert grid[0] == 2 and grid[-1] == 500 and len(grid) <= 12
    assert list(grid) == sorted(set(grid))


def test_grid_stays_below_the_number_of_nodes():
    assert max(ClusterConfig().grid(6)) == 5
    assert ClusterConfig(num_clusters="5..9").grid(4) == ()


def test_settings_and_flows_are_imported_without_heavy_libraries():
    code = (
        "import sys\n"
        "from gcl.clustering.config import ClusterConfig\n"
        "from gcl.uncertainty import UncertaintyConfig\n"
        "from gcl.evaluation.config import EvaluateConfig\n"
        "import gcl.plots\n"
        "ClusterConfig(), UncertaintyConfig(), EvaluateConfig()\n"
        "import flows.pipeline\n"
        "heavy = {'torch', 'sklearn', 'matplotlib', 'dgl', 'sknetwork', 'scipy.optimize', 'scipy.stats',"
        " 'pandas', 'great_expectations', 'distributed'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
