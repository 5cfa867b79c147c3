"""Attack: a trained victim meets every attack on the test graphs."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gcl.attacks.attack_config import AttackConfig
from gcl.attacks.victim_config import VictimConfig
from tasks.convert import write_columns
from tasks.stage import Stage
from tasks.work import Work

if TYPE_CHECKING:
    from gcl.attacks.base import Attacked, Target


def attack(work: Work, config: AttackConfig) -> None:
    """Draw the test graphs again, attack the victim on them, and write every choice and answer."""
    from gcl.attacks.components import generate
    from gcl.attacks.run import run_attacks, target_of
    from gcl.attacks.victim import build_victim
    from gcl.checkpoint import load_weights

    folder = work.input("victim")
    trained = VictimConfig.model_validate(json.loads((folder / "config.json").read_bytes()))
    model = build_victim(trained, seed=work.seed)
    load_weights(model, folder / "checkpoint.safetensors")
    target = target_of(model, generate(trained.graphs).test, config)
    begun: list[str] = []

    def tell(name: str) -> None:
        work.progress(len(begun), len(config.attacks), name)
        begun.append(name)

    results = run_attacks(target, config, seed=work.seed, on_attack=tell)
    work.progress(len(begun), len(config.attacks))
    _write_results(work, target, results)
    work.describe("attacks", summary_of(target, results) | {"notes": work.metadata("victim")["notes"]})
    work.expect(
        "attacks.results",
        num_rows=len(target.y_G) * len(results),
        num_graphs=len(target.y_G),
        num_classes=trained.graphs.num_classes,
    )


def summary_of(target: "Target", results: "Mapping[str, Attacked]") -> dict[str, Any]:
    """What is read off the table of results: accuracies, and success on the graphs that were right.

    Args:
        target: victim and graphs.
        results: of its attacks, by name.
    """
    is_right_G, num_right = target.is_right_G, int(target.is_right_G.sum())
    found = {}
    for name, result in results.items():
        is_fooled_G = is_right_G & (result.predicted_G != target.y_G)
        found[name] = {
            "accuracy": result.accuracy(target.y_G),
            "success": int(is_fooled_G.sum()) / num_right if num_right else None,
            "num_added": int((result.pair_G2[:, 0] >= 0).sum()),
        }
    return {
        "num_graphs": len(is_right_G),
        "num_right": num_right,
        "clean_accuracy": num_right / len(is_right_G),
        "attacks": found,
    }


def _write_results(work: Work, target: "Target", results: "Mapping[str, Attacked]") -> None:
    num_graphs = len(target.y_G)
    pairs = np.concatenate([result.pair_G2.numpy() for result in results.values()])
    is_none = pairs[:, 0] < 0
    write_columns(
        work.output("attacks") / "results.parquet",
        "attacks.results",
        {
            "graph": np.tile(np.arange(num_graphs), len(results)),
            "attack": np.repeat(np.array(list(results), object), num_graphs),
            "label": np.tile(target.y_G.numpy(), len(results)),
            "clean": np.tile(target.clean_G.numpy(), len(results)),
            "attacked": np.concatenate([result.predicted_G.numpy() for result in results.values()]),
            "src": pa.array(pairs[:, 0], pa.int64(), mask=is_none),
            "dst": pa.array(pairs[:, 1], pa.int64(), mask=is_none),
        },
    )


ATTACK = Stage(
    name="attack",
    version=1,
    body=attack,
    tables=("attacks.results",),
    libraries=("numpy", "pyarrow", "safetensors", "scipy", "torch"),
)
