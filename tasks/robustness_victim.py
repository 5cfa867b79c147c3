"""Victim: a classifier of generated graphs is trained, to be attacked.

Apart from the attack stage, so that a change of an attack trains nothing again.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gcl.attacks.components import generate
from gcl.attacks.victim_config import VictimConfig
from gcl.config import result_fields
from tasks.artifact import canonical_json
from tasks.convert import write_columns
from tasks.stage import Stage
from tasks.work import Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gcl.attacks.victim import TrainedVictim


def victim(work: Work, config: VictimConfig) -> None:
    """Generate the graphs and train; the graphs are not kept, since the settings draw them again."""
    from gcl.attacks.victim import train_victim
    from gcl.checkpoint import save_weights

    trained = train_victim(
        config, generate(config.graphs), seed=work.seed, on_epoch=partial(_tell, work, config.epochs)
    )
    folder = work.output("victim")
    save_weights(trained.model, folder / "checkpoint.safetensors")
    (folder / "config.json").write_bytes(canonical_json(result_fields(config)) + b"\n")
    columns = {name: np.array([row[name] for row in trained.history]) for name in trained.history[0]}
    columns["epoch"] = np.arange(len(trained.history), dtype=np.int32)
    terms = [name for name in columns if name != "epoch"]
    write_columns(folder / "history.parquet", "victim.history", columns, extra_columns=terms)
    work.describe(
        "victim", {"epoch": trained.epoch, "selection": config.selection, "notes": _notes(config, trained)}
    )
    work.expect("victim.history", num_epochs=config.epochs)


def _tell(work: Work, num_epochs: int, epoch: int, terms: "Mapping[str, float]") -> None:
    work.progress(epoch, num_epochs, f"loss {terms['loss']:.4f}")


def _notes(config: VictimConfig, trained: "TrainedVictim") -> "Sequence[str]":
    from gcl.methods.affinity_estimation import LEAST_ANSWERED, answered_note

    found = []
    if config.selection == "test":
        found.append(
            "the epoch was selected by the loss on the test graphs, as in the original: no fair result"
        )
    if trained.answered_share is not None and trained.answered_share < LEAST_ANSWERED:
        found.append(f"K={config.num_rounds} augcl: {answered_note(trained.answered_share)}")
    return found


VICTIM = Stage(
    name="victim",
    version=1,
    body=victim,
    tables=("victim.history",),
    libraries=("numpy", "pyarrow", "safetensors", "scipy", "torch"),
)
