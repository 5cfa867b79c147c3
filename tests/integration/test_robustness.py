"""The robustness study, small: 200 graphs a class, 30 epochs, three attacks; two cached stages a cell."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import TABLES, ContractViolation, check_table
from flows import robustness as module
from flows.config import ConfigurationError
from flows.exit_codes import Interrupted
from flows.robustness import RobustnessRecord, robustness_config, run_and_show, run_robustness
from flows.robustness_table import robustness_markdown
from gcl.errors import NonFiniteLoss
from tasks.closure import import_closure
from tasks.robustness import ATTACK
from tasks.robustness_victim import VICTIM
from tasks.store import Store

through_prefect = pytest.mark.usefixtures("prefect_api")

SMOKE = (
    "victim.graphs.graphs_per_class=200",
    "victim.epochs=30",
    'attack.attacks=["random", "grad_argmax", "exhaustive"]',
    "num_rounds=[2, 3]",
)


@pytest.fixture(scope="module")
def first(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RobustnessRecord]:
    """The folder with store and results of the finished small study, and its record."""
    folder = tmp_path_factory.mktemp("robustness")
    started = time.process_time()
    record = run_robustness(store=str(folder / "store"), out=folder / "out", seeds="0", settings=SMOKE)
    assert time.process_time() - started < 90
    return folder, record


@pytest.mark.slow
def test_every_cell_keeps_the_order_of_attacks(first: tuple[Path, RobustnessRecord]) -> None:
    cells = first[1].cells
    assert [(cell.num_rounds, cell.training) for cell in cells] == [
        (depth, training) for depth in (2, 3) for training in ("scratch", "graphcl", "augcl")
    ]
    for cell in cells:
        assert cell.state == "finished"
        accuracy = {name: found["accuracy"] for name, found in cell.attacks.items()}
        assert set(accuracy) == {"random", "grad_argmax", "exhaustive"}
        assert min(accuracy.values()) == accuracy["exhaustive"] < cell.clean_accuracy
        assert max(accuracy.values()) <= cell.clean_accuracy
        assert cell.clean_accuracy > 0.6, "a victim worth attacking"


@pytest.mark.slow
def test_summary_is_read_off_the_table_of_results(first: tuple[Path, RobustnessRecord]) -> None:
    store, tables = Store(first[0] / "store"), []
    for manifest in store.manifests():
        if manifest.stage == "attack":
            tables.append(pq.read_table(store.open(manifest.artifacts["attacks"]) / "results.parquet"))
    seen = Counter()
    for table in tables:
        rows = table.to_pylist()
        assert len(rows) == 3 * 60
        for name in ("random", "grad_argmax", "exhaustive"):
            of_name = [row for row in rows if row["attack"] == name]
            right = [row for row in of_name if row["clean"] == row["label"]]
            fooled = [row for row in right if row["attacked"] != row["label"]]
            seen[(name, len(right) / 60, (len(right) - len(fooled)) / 60, len(fooled) / len(right))] += 1
            assert all(row["attacked"] == row["clean"] for row in of_name if row["src"] is None)
    told = Counter(
        (name, cell.clean_accuracy, found["accuracy"], found["success"])
        for cell in first[1].cells
        for name, found in cell.attacks.items()
    )
    assert seen == told


@pytest.mark.slow
def test_results_lie_in_the_folder(first: tuple[Path, RobustnessRecord]) -> None:
    out = first[0] / "out"
    assert RobustnessRecord.model_validate_json((out / "robustness.json").read_text()) == first[1]
    assert str(first[0]) not in (out / "robustness.json").read_text()
    table = (out / "table.md").read_text()
    header = "| attack | K=2 scratch | K=2 graphcl | K=2 augcl | K=3 scratch | K=3 graphcl | K=3 augcl |"
    assert table.count(header) == 2
    clean = " | ".join(f"{100 * cell.clean_accuracy:.2f}" for cell in first[1].cells)
    assert f"| none | {clean} |" in table
    assert first[1].cells[0].seconds.keys() == {"victim", "attack"}


@pytest.mark.slow
def test_again_everything_is_cached_and_an_attack_changed_trains_no_victim(
    first: tuple[Path, RobustnessRecord], tmp_path: Path
) -> None:
    store = str(first[0] / "store")
    again = run_robustness(store=store, out=tmp_path, seeds="0", settings=SMOKE)
    assert {cell.num_cached for cell in again.cells} == {2}
    for old, new in zip(first[1].cells, again.cells, strict=True):
        assert old == new.model_copy(update={"num_cached": 0})
    settings = (*SMOKE, "num_rounds=[2]", "attack.exclude_existing=false", 'attack.attacks=["random"]')
    changed = run_robustness(store=store, out=tmp_path, seeds="0", settings=settings)
    assert {cell.num_cached for cell in changed.cells} == {1}
    assert [cell.clean_accuracy for cell in changed.cells] == [c.clean_accuracy for c in first[1].cells[:3]]


@pytest.mark.slow
def test_a_stop_loses_nothing_and_leaves_what_is_finished(
    first: tuple[Path, RobustnessRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    class StopsAtTheThird:
        request = ATTACK.request

        def run(self, *arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise KeyboardInterrupt("signal SIGTERM")
            return ATTACK.run(*arguments)

    monkeypatch.setattr(module, "ATTACK", StopsAtTheThird())
    with pytest.raises(Interrupted):
        run_robustness(store=str(first[0] / "store"), out=tmp_path, seeds="0", settings=SMOKE)
    left = RobustnessRecord.model_validate_json((tmp_path / "robustness.json").read_text())
    assert (len(left.cells), left.num_planned) == (2, 6)
    assert json.loads((tmp_path / "failure.json").read_text())["exit_code"] == 130


@pytest.mark.slow
@through_prefect
def test_a_cell_that_fails_is_recorded_and_the_exit_code_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--seeds", "0", "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]

    class Diverges:
        request = VICTIM.request

        def run(self, *_: Any) -> Any:
            raise NonFiniteLoss(3, "loss")

    monkeypatch.setattr(module, "VICTIM", Diverges())
    for setting in ("num_rounds=[2]", 'trainings=["scratch"]', "victim.graphs.graphs_per_class=20"):
        arguments += ["--set", setting]
    monkeypatch.setattr("sys.argv", ["robustness", *arguments])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 5
    printed = " ".join(capsys.readouterr().out.split())
    assert "0 of 1 cells finished" in printed
    assert "loss is not finite in epoch 3" in printed


def test_a_wrong_setting_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["robustness", "--set", "victim.epoch=3", "--store", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip() == (
        "gclflow: configuration: --set victim.epoch: Extra inputs are not permitted"
    )


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("epochs", "--set takes KEY=VALUE"),
        ("victim.training=augcl", "training is varied by the study: set num_rounds or trainings instead"),
        ("victim.num_rounds=2", "num_rounds is varied by the study"),
        ('trainings=["simgrace"]', "trainings.0: Input should be 'scratch', 'graphcl' or 'augcl'"),
        ("num_rounds=[0]", "num_rounds.0"),
        ("seed=1", "seed: Extra inputs"),
        ("num_rounds=3", r"--set num_rounds: takes a list, as --set 'num_rounds=\[3\]'$"),
        ('trainings="augcl"', r"trainings: takes a list, as --set 'trainings=\[\"augcl\"\]'$"),
        (
            "attack.attacks=random",
            r"attack\.attacks: takes a list, as --set 'attack\.attacks=\[\"random\"\]'$",
        ),
        ("num_rounds=[3, 2, 3]", "num_rounds: 3 is named twice$"),
        ('trainings=["augcl", "augcl"]', "trainings: augcl is named twice$"),
        ("victim.epochs=1", "--set victim: training=graphcl needs 1 contrastive epochs .* epochs=1 "),
        ("victim.epochs=10", "victim: training=augcl needs 2 contrastive epochs .* make 1: raise either"),
        ("victim.graphs.graphs_per_class=10", "victim: 27 training graphs do not fill a batch of 50"),
    ],
)
def test_settings_that_do_not_fit_are_refused(setting: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        robustness_config([setting])
    with pytest.raises(ConfigurationError, match="victim has a value already"):
        robustness_config(["victim=1", "victim.epochs=2"])


def test_options_of_other_studies_are_refused(tmp_path: Path) -> None:
    for given in ({"only": ["augcl"]}, {"large": True}):
        with pytest.raises(ConfigurationError, match="robustness has no --only and no --large"):
            run_and_show(seeds=None, settings=(), store=str(tmp_path), out=tmp_path, **given)


def test_a_seed_more_gives_deviations_and_failed_cells_leave_gaps() -> None:
    def cell(seed: int, **found: Any) -> dict[str, Any]:
        return {"num_rounds": 2, "training": "scratch", "seed": seed, "state": "finished", **found}

    attacks = [{"exhaustive": {"accuracy": a, "success": 1 - a, "num_added": 3}} for a in (0.5, 0.6)]
    cells = [
        cell(0, clean_accuracy=0.9, attacks=attacks[0], notes=["a <note>"]),
        cell(1, clean_accuracy=0.8, attacks=attacks[1], notes=["a <note>"]),
        cell(2, state="failed", reason="because | of this"),
    ]
    record = RobustnessRecord.model_validate(
        {"config": {}, "seeds": [0, 1, 2], "num_planned": 4, "versions": {}, "machine": {}, "cells": cells}
    )
    text = robustness_markdown(record)
    assert "2 of 4 cells finished" in text
    assert "| none | 85.00 ± 7.07 |" in text
    assert "| Exhaustive | 55.00 ± 7.07 |" in text
    assert "| Exhaustive | 45.00 ± 7.07 |" in text
    assert "| 2 | scratch | 2 | because \\| of this |" in text
    assert text.count("a &lt;note&gt;") == 1


def test_a_change_of_an_attack_is_no_change_of_a_victim() -> None:
    victim, attack = (import_closure([stage.body.__module__]) for stage in (VICTIM, ATTACK))
    assert "gcl.attacks.victim" in victim
    assert not {
        name
        for name in victim
        if name.startswith("gcl.attacks.")
        and name.endswith(("attack_config", "simple", "genetic", "rl_s2v", "base"))
    }
    assert {"gcl.attacks.rl_s2v", "gcl.attacks.genetic", "gcl.attacks.simple", "gcl.attacks.victim"} <= set(
        attack
    )


RESULTS = {
    "graph": [0, 1, 0, 1],
    "attack": ["random", "random", "exhaustive", "exhaustive"],
    "label": [0, 1, 0, 1],
    "clean": [0, 2, 0, 2],
    "attacked": [0, 2, 1, 2],
    "src": [3, None, 0, None],
    "dst": [5, None, 2, None],
}
HISTORY = {"epoch": [0, 1], "loss": [1.0, 0.5], "validation_loss": [1.0, 0.75]}
FACTS = {
    "attacks.results": {"num_rows": 4, "num_graphs": 2, "num_classes": 3},
    "victim.history": {"num_epochs": 2},
}


def checked(table: str, rows: dict[str, list[Any]], folder: Path) -> Any:
    extras = ("loss", "validation_loss") if table == "victim.history" else ()
    schema = TABLES[table].schema(extra_columns=extras)
    arrays = [pa.array(rows[field.name], field.type) for field in schema]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), folder / "t.parquet")
    return check_table(folder / "t.parquet", table, context=FACTS[table])


@pytest.mark.parametrize(("table", "rows"), [("attacks.results", RESULTS), ("victim.history", HISTORY)])
def test_sound_tables_pass(table: str, rows: dict[str, list[Any]], tmp_path: Path) -> None:
    assert checked(table, rows, tmp_path).failed == 0


@pytest.mark.parametrize(
    ("column", "row", "value", "rule"),
    [
        ("graph", 1, 2, "graphs_in_range"),
        ("graph", 1, 0, "keys_unique"),
        ("attack", 0, "rl", "attacks_known"),
        ("label", 0, 3, "classes_in_range"),
        ("clean", 0, -1, "classes_in_range"),
        ("attacked", 3, 3, "classes_in_range"),
        ("dst", 0, 3, "no_self_loops"),
    ],
)
def test_broken_results_are_refused(column: str, row: int, value: Any, rule: str, tmp_path: Path) -> None:
    rows = {name: list(values) for name, values in RESULTS.items()}
    rows[column][row] = value
    assert rule in broken_rules(lambda: checked("attacks.results", rows, tmp_path))


def test_missing_rows_and_epochs_are_refused(tmp_path: Path) -> None:
    short = {name: values[:3] for name, values in RESULTS.items()}
    assert broken_rules(lambda: checked("attacks.results", short, tmp_path)) == {
        "every_attack_on_every_graph"
    }
    backwards = HISTORY | {"epoch": [1, 0]}
    assert broken_rules(lambda: checked("victim.history", backwards, tmp_path)) == {"epochs_increasing"}
    short = {name: values[:1] for name, values in HISTORY.items()}
    assert broken_rules(lambda: checked("victim.history", short, tmp_path)) == {"every_epoch_present"}


def broken_rules(check: Callable[[], Any]) -> set[str]:
    with pytest.raises(ContractViolation) as caught:
        check()
    return {failure.rule for failure in caught.value.failures}
