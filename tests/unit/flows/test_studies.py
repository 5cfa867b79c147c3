"""Studies as data: which cells they make, which of them are chosen, and what their figures come to."""

import json
import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.config import ConfigurationError
from flows.exit_codes import exit_code
from flows.record import Metric
from flows.study_config import Study, cell_configs, read_study, study_cells, study_names
from flows.study_plots import study_plots
from flows.study_record import CellRecord, StudyRecord
from flows.study_summary import measured, slopes, summarise
from flows.study_tables import study_markdown

STUDIES_PAGE = Path(__file__).resolve().parents[3] / "docs" / "studies.md"
ASKED_FOR = {
    "dmat-smoothing", "dmat-imbalance", "dmat-batch-size", "dmat-scaling", "nml-ablation", "nml-alpha",
    "nml-metric-steps", "nml-scaling", "negative-weights", "hsan-ablation", "hsan-tau", "hsan-seeds",
}  # fmt: skip


def make_study(**changes: object) -> Study:
    document: dict[str, object] = {
        "name": "tiny",
        "title": "Tiny",
        "question": "Does it work?",
        "reference": "plain",
        "seeds": "0..2",
        "figures": ["node_classification/*/accuracy", "seconds/train"],
        "datasets": [
            {"name": "one", "settings": ["dataset.format=synthetic", "dataset.nodes=50"]},
            {"name": "two", "settings": ["dataset.format=synthetic", "dataset.nodes=60"], "large": True},
        ],
        "variants": [{"name": "plain"}, {"name": "cold", "settings": ["method.temperature=0.1"]}],
    }
    return Study.model_validate(document | changes)


def metric(value: float, *, embedding: str = "method", split: str = "test") -> Metric:
    return Metric(
        task="node_classification", protocol="public", split=split, embedding=embedding, metric="accuracy",
        value=value, std=0.0, n=1, over=None,
    )  # fmt: skip


def cell(variant: str, seed: int, value: float, *, point: dict[str, float] | None = None) -> CellRecord:
    return CellRecord(
        dataset="one",
        variant=variant,
        point=point or {},
        seed=seed,
        state="finished",
        preset="none",
        overrides=(),
        metrics=[metric(value), metric(0.25, embedding="smoothed")],
        validation_metrics=[metric(value + 0.1, split="validation")],
        seconds={"train": 2.0 * value},
    )


def record(study: Study, cells: list[CellRecord]) -> StudyRecord:
    rows = summarise(study, cells)
    return StudyRecord(
        study=study, seeds=(0, 1, 2), num_planned=len(cells), versions={}, machine={}, cells=cells,
        summary=rows, slopes=slopes(study, rows),
    )  # fmt: skip


def test_the_studies_that_the_methods_ask_for_are_there() -> None:
    assert set(study_names()) >= ASKED_FOR


@pytest.mark.parametrize("name", study_names())
def test_every_study_is_on_its_page(name: str) -> None:
    rows = [line for line in STUDIES_PAGE.read_text().splitlines() if line.startswith("| ")]
    assert name in {listed.strip() for row in rows for listed in row.split("|")[1].split(",")}


@pytest.mark.parametrize("name", study_names())
def test_every_cell_of_every_study_is_a_valid_configuration(name: str, tmp_path: Path) -> None:
    study = read_study(name)
    cells = study_cells(study, seeds="3", large=True)
    configs = cell_configs(cells, tmp_path)
    assert len(cells) == len(set(map(str, configs))), "two cells that are the same run compare nothing"
    assert {config.seed for config in configs} == {3}
    for cell, config in zip(cells, configs, strict=True):
        assert bool(cell.places) == (getattr(config.dataset, "path", None) is not None)
        assert not any("dataset.path" in override for override in cell.overrides)
    assert all(variant.about or study.axes for variant in study.variants), "a variant says what is different"


def test_cells_are_data_sets_by_variants_by_seeds_and_large_ones_are_extra() -> None:
    cells = study_cells(make_study())
    assert [(c.dataset, c.variant, c.seed) for c in cells] == [
        ("one", variant, seed) for variant in ("plain", "cold") for seed in (0, 1, 2)
    ]
    assert len(study_cells(make_study(), large=True)) == 12
    axes = [{"field": "dataset.homophily", "values": [0.1, 0.9], "large": [0.5]}]
    assert len(study_cells(make_study(axes=axes))) == 12
    assert len(study_cells(make_study(axes=axes), large=True)) == 36


def test_settings_are_applied_in_order_and_the_seed_last() -> None:
    study = make_study(
        settings=["train.epochs=1", "train.batch_size=32"],
        seeded=["dataset.seed"],
        axes=[{"field": "train.batch_size", "values": [64]}],
    )
    chosen = study_cells(study, seeds="7", only=["cold"], settings=["train.epochs=9"])
    (config,) = cell_configs(chosen, None)
    assert (config.train.epochs, config.train.batch_size) == (9, 64)
    assert config.method.temperature == 0.1  # type: ignore[union-attr]
    assert (config.seed, config.dataset.seed) == (7, 7)


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        (["cold"], {("one", "cold"), ("two", "cold")}),
        (["*/two"], {("two", "plain"), ("two", "cold")}),
        (["cold/one", "plain/two"], {("one", "cold"), ("two", "plain")}),
    ],
)
def test_only_chooses_variants_and_data_sets(only: list[str], chosen: set[tuple[str, str]]) -> None:
    cells = study_cells(make_study(), only=only, large=True)
    assert {(c.dataset, c.variant) for c in cells} == chosen


def test_a_pattern_that_nothing_fits_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        ConfigurationError, match=r"--only warm/\*: no cell.*variants: plain, cold; data sets"
    ):
        study_cells(make_study(), only=["cold", "warm"])


def test_data_sets_of_files_need_a_folder_and_take_the_first_place_that_exists(tmp_path: Path) -> None:
    files = {"name": "cora", "preset": "cora", "paths": ["planetoid", "cora"]}
    cells = study_cells(make_study(datasets=[files], variants=[{"name": "plain"}]), seeds="0")
    with pytest.raises(ConfigurationError, match="give --data.*cora is looked for in planetoid or cora"):
        cell_configs(cells, None)
    (absent,) = cell_configs(cells, tmp_path)
    (tmp_path / "cora").mkdir()
    (present,) = cell_configs(cells, tmp_path)
    assert str(absent.dataset.path) == str(tmp_path / "planetoid")  # type: ignore[union-attr]
    assert str(present.dataset.path) == str(tmp_path / "cora")  # type: ignore[union-attr]


def test_a_preset_of_a_variant_can_name_the_data_set() -> None:
    study = make_study(variants=[{"name": "plain", "preset": "{dataset}-best"}])
    assert {c.preset for c in study_cells(study)} == {"one-best"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reference": "none"}, "none of the variants"),
        ({"variants": [{"name": "plain"}, {"name": "plain"}]}, "named twice"),
        ({"plot": "curves"}, "needs an axis"),
        ({"reference_point": {"train.epochs": 3}}, "on no axis"),
        ({"figures": []}, "figures"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_study_that_does_not_fit_is_refused(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    document = make_study().model_dump(mode="json", exclude={"name"}) | changes
    file = tmp_path / "mine.toml"
    file.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in document.items()))
    with pytest.raises(ConfigurationError, match=told):
        read_study(str(file))


def _toml(value: object) -> str:
    if isinstance(value, dict):
        parts = (f'"{key}" = {_toml(inner)}' for key, inner in value.items() if inner is not None)
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def test_a_cell_that_does_not_fit_is_named() -> None:
    study = make_study(variants=[{"name": "plain", "settings": ["train.epochs=0"]}])
    with pytest.raises(ConfigurationError, match="cell one, plain, seed 0: train.epochs"):
        cell_configs(study_cells(study), None)


def test_unknown_studies_are_refused_with_the_names() -> None:
    with pytest.raises(ConfigurationError, match="there is no study 'nope'; there are: .*dmat-smoothing"):
        read_study("nope")
    with pytest.raises(ConfigurationError, match=r"absent\.toml: No such file"):
        read_study("absent.toml")


def test_differences_are_paired_by_seed() -> None:
    cells = [cell("plain", seed, value) for seed, value in enumerate((0.1, 0.5, 0.9))]
    cells += [cell("cold", seed, value) for seed, value in enumerate((0.2, 0.7))]
    plain, cold = summarise(make_study(), cells)[:2]
    assert (plain.variant, plain.difference, plain.n) == ("plain", None, 3)
    assert plain.mean == pytest.approx(0.5)
    assert plain.std == pytest.approx(0.4)
    assert cold.difference is not None
    assert cold.difference.mean == pytest.approx(0.15)
    assert cold.difference.std == pytest.approx(statistics.stdev([0.1, 0.2]))
    assert (cold.difference.n, cold.difference.num_above) == (2, 2)
    assert cold.validation_mean == pytest.approx(0.55)
    assert cold.validation_difference is not None
    assert cold.validation_difference.mean == pytest.approx(0.15)
    assert cold.controls == {"smoothed": 0.25}


def test_a_reference_point_is_what_the_others_are_compared_with() -> None:
    axes = [{"field": "train.epochs", "values": [1, 2]}]
    study = make_study(axes=axes, reference_point={"train.epochs": 1}, figures=["seconds/train"])
    cells = [cell("plain", seed, 1.0 + seed, point={"train.epochs": 1}) for seed in (0, 1)]
    cells += [cell("plain", seed, 4.0 + seed, point={"train.epochs": 2}) for seed in (0, 1)]
    first, second = summarise(study, cells)
    assert first.difference is None
    assert second.difference is not None
    assert (second.difference.mean, second.difference.std) == (6.0, 0.0)


def test_failed_cells_count_nowhere_and_are_listed() -> None:
    failed = CellRecord(
        dataset="one", variant="cold", point={}, seed=1, state="failed", reason="out of | luck",
        preset="none", overrides=(),
    )  # fmt: skip
    found = record(make_study(), [cell("plain", 0, 0.5), failed])
    assert {row.variant for row in found.summary} == {"plain"}
    text = study_markdown(found)
    assert "1 of 6 cells of the study finished, 1 failed" in text
    assert "| one | cold |  | 1 | out of \\| luck |" in text


def test_tables_show_validation_and_controls_beside_the_figure_in_percent() -> None:
    cells = [cell(v, s, 0.5 + 0.1 * s) for v in ("plain", "cold") for s in (0, 1)]
    lines = study_markdown(record(make_study(), cells)).splitlines()
    start = next(i for i, line in enumerate(lines) if "node classification public accuracy, %" in line)
    assert lines[start + 2] == (
        "| variant | value | difference | on validation | difference, validation "
        "| smoothed features | seeds |"
    )
    assert lines[start + 4] == "| plain | 55.00 ± 7.07 | - | 65.00 ± 7.07 | - | 25.00 | 2 |"
    assert lines[start + 5].startswith("| cold | 55.00 ± 7.07 | 0.00 ± 0.00 (0 of 2) |")


def test_oracle_figures_stand_apart_and_are_marked() -> None:
    chosen = metric(0.75, split="oracle").model_copy(update={"protocol": "kmeans-oracle"})
    oracle = cell("plain", 0, 0.5).model_copy(update={"oracle_metrics": [chosen]})
    found = record(make_study(), [oracle])
    results, _, apart = study_markdown(found).partition("Chosen with labels: not a result")
    assert "kmeans-oracle" not in results
    assert "kmeans-oracle | accuracy | 75.00" in apart
    assert not any("oracle" in name for name in measured(oracle))


def test_growth_is_the_slope_of_the_logarithms() -> None:
    axes = [{"field": "dataset.nodes", "values": [10, 100, 1000]}]
    study = make_study(axes=axes, plot="loglog", figures=["seconds/train"])
    cells = [cell("plain", 0, 3.0 * n**1.5, point={"dataset.nodes": n}) for n in (10, 100, 1000)]
    found = record(study, cells)
    assert [(s.figure, s.exponent, s.last, s.n) for s in found.slopes] == [("seconds/train", 1.5, 1.5, 3)]
    assert "| seconds of train | one | plain | 1.50 | 1.50 | 3 |" in study_markdown(found)


def test_what_is_there_from_the_start_does_not_hide_growth_between_the_largest() -> None:
    axes = [{"field": "dataset.nodes", "values": [1, 10, 100000, 1000000]}]
    study = make_study(axes=axes, plot="loglog", figures=["seconds/train"])
    cells = [cell("plain", 0, 1e4 + n, point={"dataset.nodes": n}) for n in (1000000, 1, 10, 100000)]
    (slope,) = slopes(study, summarise(study, cells))
    assert slope.exponent < 0.4
    assert slope.last > 0.9


def test_setting_the_field_of_an_axis_chooses_one_of_its_values() -> None:
    axes = [{"field": "train.epochs", "values": [1, 2], "large": [4]}]
    study = make_study(axes=axes, reference_point={"train.epochs": 1})
    cells = study_cells(study, settings=["train.epochs = 2"])
    assert {cell.point["train.epochs"] for cell in cells} == {2}
    assert {config.train.epochs for config in cell_configs(cells, None)} == {2}
    assert len(cells) * 2 == len(study_cells(study))
    with pytest.raises(ConfigurationError, match="--set train.epochs: study tiny has it at 1, 2$"):
        study_cells(study, settings=["train.epochs=4"])
    assert study_cells(study, settings=["train.epochs=4"], large=True)


def test_a_setting_that_the_seed_decides_cannot_be_set() -> None:
    study = make_study(seeded=["dataset.seed"])
    for field in ("dataset.seed", "seed"):
        with pytest.raises(ConfigurationError, match=f"--set {field}: study tiny varies it itself"):
            study_cells(study, settings=[f"{field}=3"])


def test_the_studies_are_listed_with_their_questions_and_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    done = CliRunner().invoke(app, ["study"])
    assert done.exit_code == 0
    lines = {line.split("│")[1].strip(): line for line in done.output.splitlines() if line.startswith("│")}
    for name in study_names():
        study = read_study(name)
        assert study.question in lines[name]
        assert f" {len(study_cells(study))} " in lines[name]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nope"], "there is no study 'nope'"),
        (["dmat-loss"], "give --data"),
        (["dmat-loss", "--data", "absent"], "there is no such folder"),
        (["dmat-smoothing", "--seeds", "x"], "--seeds takes"),
        (["dmat-smoothing", "--only", "nothing"], "no cell of dmat-smoothing fits"),
        (
            ["dmat-smoothing", "--set", "train.epochs=0"],
            "cell sbm, none, dataset.homophily=0.1, seed 0: train",
        ),
        (["dmat-smoothing", "--store", "gs://bucket"], "only local directories"),
    ],
)
def test_wrong_usage_starts_nothing(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["study", *arguments])
    assert exit_code(done.exception) == 2  # type: ignore[arg-type]
    assert told in str(done.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("plot", ["variants", "curves", "loglog"])
def test_every_figure_of_a_data_set_has_a_picture_the_same_for_the_same_cells(plot: str) -> None:
    axes = [{"field": "train.epochs", "values": [1, 2]}, {"field": "smooth.filter", "values": ["ppr", "sgc"]}]
    study = make_study(axes=axes, plot=plot)
    cells = [
        cell(variant, seed, 0.1 * epochs + 0.01 * seed, point={"train.epochs": epochs, "smooth.filter": name})  # type: ignore[dict-item]
        for variant in ("plain", "cold")
        for epochs in (1, 2)
        for name in ("ppr", "sgc")
        for seed in (0, 1)
    ]
    first, second = (study_plots(record(study, cells)) for _ in range(2))
    assert [p.name for p in first] == ["one-node_classification-public-accuracy", "one-seconds-train"]
    assert [p.png for p in first] == [p.png for p in second]
    assert all(p.png.startswith(b"\x89PNG") for p in first)


def test_a_record_reads_back_as_it_was_written() -> None:
    found = record(make_study(), [cell("plain", 0, 0.5), cell("cold", 0, 0.25)])
    assert StudyRecord.model_validate_json(found.model_dump_json()) == found


def test_the_spread_over_folds_stands_beside_that_over_seeds() -> None:
    def with_folds(variant: str, seed: int, value: float, std: float | None) -> CellRecord:
        found = metric(value).model_copy(update={"std": std, "over": "folds"})
        control = metric(0.25, embedding="smoothed").model_copy(update={"std": 0.9, "over": "folds"})
        return cell(variant, seed, value).model_copy(update={"metrics": [found, control]})

    cells = [with_folds("plain", seed, 0.5 + 0.02 * seed, 0.06 + 0.02 * seed) for seed in (0, 1)]
    cells += [with_folds("cold", 0, 0.4, None)]
    text = study_markdown(record(make_study(), cells))
    assert "| variant | value | std over folds | difference |" in text
    assert "| plain | 51.00 ± 1.41 | 7.00 | - |" in text
    assert "| cold | 40.00 | - | -10.00 (0 of 1) |" in text
    assert "std over folds" not in study_markdown(record(make_study(), [cell("plain", 0, 0.5)]))


def test_metrics_of_a_run_are_named_by_task_protocol_and_metric() -> None:
    names = measured(cell("plain", 0, 0.5))
    assert set(names) == {"node_classification/public/accuracy", "seconds/train"}
