"""docs/robustness.md: its example runs, and what it says of settings is so."""

import re
from pathlib import Path

from gcl.attacks.attack_config import AttackConfig
from gcl.attacks.victim_config import VictimConfig

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "robustness.md").read_text()


def test_the_example_runs() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    namespace: dict[str, dict[str, float]] = {}
    exec(compile(source, "docs/robustness.md", "exec"), namespace)
    accuracy = namespace["accuracy"]
    assert accuracy["exhaustive"] <= accuracy["random"] <= 1


def test_defaults_are_those_of_the_page() -> None:
    graphs = VictimConfig().graphs
    told = dict(re.findall(r"\| `([a-z_0-9.]+)` \| ([a-z0-9.]+) \|", PAGE))
    assert told == {
        "victim.epochs": str(VictimConfig().epochs),
        "victim.contrastive_share": str(VictimConfig().contrastive_share),
        "victim.graphs.seed": str(graphs.seed),
        "attack.exclude_existing": str(AttackConfig().exclude_existing).lower(),
        "attack.rl_s2v.steps": str(AttackConfig().rl_s2v.steps),
    }
    sizes = f"| {graphs.min_nodes}, {graphs.max_nodes}, {graphs.edge_probability} |"
    assert sizes in PAGE
