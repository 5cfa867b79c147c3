"""Another method under a preset or file: it brings its own training, and says what stayed of the other's."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.config import ConfigurationError, PipelineConfig, load_config, method_switch
from flows.record import RunRecord
from flows.study_config import cell_configs, read_study, study_cells

CORA = ("dataset.path=x",)


def load(preset: str, *overrides: str) -> PipelineConfig:
    return load_config(preset=preset, overrides=[*CORA, *overrides])[0]


def test_another_method_brings_its_own_training() -> None:
    config = load("cora", "method.name=grace")
    assert (config.train.epochs, config.train.learning_rate, config.train.weight_decay) == (200, 5e-4, 1e-5)
    assert config.method.hidden_size == 512, "nothing of the preset's dmat_i"
    assert config.smooth == load("cora").smooth, "the control beside it stays"


def test_what_is_set_by_hand_stands() -> None:
    config = load("cora", "method.name=grace", "train.epochs=7", "method.hidden_size=32")
    assert (config.train.epochs, config.train.learning_rate, config.method.hidden_size) == (7, 5e-4, 32)
    ppr = load("cora", "method.name=hsan", "smooth.filter=ppr", "cluster.normalise=true")
    assert (ppr.smooth, ppr.cluster.normalise) == (load("cora").smooth, True)


def test_methods_on_grace_keep_its_encoder_and_its_training() -> None:
    grace = load("citeseer-grace")
    progcl = load("citeseer-grace", "method.name=progcl")
    assert progcl.train == grace.train, "1e-3, which was released for CiteSeer"
    assert (progcl.method.activation, progcl.method.temperature) == ("prelu", 0.9)
    assert progcl.method.start_epoch == 100, "the mixture has epochs left to play a part"
    assert load("citeseer-augcl", "method.name=grace").method == grace.method
    assert load("citeseer-grace", "method.name=nml_gcl").method.temperature == 0.8, "another base"


def test_where_the_defaults_of_one_family_differ_the_new_methods_count() -> None:
    augcl = load("mutag-graphcl", "method.name=augcl", "train.batch_size=64")
    assert (augcl.method.name, augcl.train.epochs, augcl.train.batch_size) == ("augcl_graph", 40, 64)
    graphcl = load("mutag-augcl", "method.name=graphcl")
    assert graphcl.method.denominator_includes_positive is False, "each has a default of its own"


def test_a_filter_and_clusters_made_for_hsan_go_with_it() -> None:
    plain = PipelineConfig()
    left = load("cora-hsan", "method.name=dmat_i")
    assert (left.smooth, left.train, left.cluster.normalise) == (plain.smooth, plain.train, True)
    come = load("cora", "method.name=hsan")
    assert (come.smooth.filter, come.smooth.num_steps, come.smooth.normalise_input) == ("sgc", 2, "none")
    assert (come.train.epochs, come.cluster.normalise, come.cluster.num_clusters) == (400, False, "classes")


def test_what_is_kept_and_where_it_is_computed_stays() -> None:
    config = load("cora-clustering", "method.name=grace")
    assert (config.train.epochs, config.train.num_checks, config.train.precision) == (200, 40, "bfloat16")
    assert config.cluster.algorithm == "consensus", "which needs the checks"


def test_the_same_method_by_name_changes_nothing() -> None:
    assert load("cora-grace", "method.name=grace") == load("cora-grace")
    assert method_switch(preset="cora-grace", overrides=["method.name=grace"]) is None
    assert method_switch(overrides=["method.name=grace"]) is None


def test_a_file_is_read_as_a_preset_is(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[method]\nname = "dmat_i"\nnum_views = 3\n[train]\nepochs = 3\nnum_checks = 2\n')
    config, _ = load_config(file=file, overrides=["method.name=grace"])
    assert (config.train.epochs, config.train.num_checks) == (200, 2)
    file.write_text("[train]\nepochs = 3\n")
    assert load_config(file=file, overrides=["method.name=grace"])[0].train.epochs == 3, "made for none"
    file.write_text('train = 3\nsmooth = 4\n[method]\nname = "dmat_i"\n')
    with pytest.raises(ConfigurationError, match="smooth: (.|\n)*train: "):
        load_config(file=file, overrides=["method.name=hsan"])
    file.write_text('[method]\nname = "unheard"\nx = 1\n')
    assert load_config(file=file, overrides=["method.name=grace"])[0].method.name == "grace"


def told_by_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str) -> str:
    def recorded(config: PipelineConfig, *, preset: str | None, **_: object) -> RunRecord:
        return RunRecord(
            config=config.model_dump(mode="json"), preset=preset, seeds=(0,), versions={}, device="cpu",
            machine={}, store="s", stages=[], metrics=[],
        )  # fmt: skip

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.running.run_pipeline", recorded)
    result = CliRunner().invoke(app, ["run", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = ("--preset", "cora", "--set", "dataset.path=x")
    output = told_by_run(monkeypatch, tmp_path, *asked, "--set", "method.name=grace")
    assert output.splitlines()[0] == (
        "method grace instead of dmat_i, which preset cora was made for; its own settings: train.epochs=200 "
        "(was 15), train.learning_rate=0.0005 (was 0.0001), train.weight_decay=1e-05; kept of the method: "
        "nothing"
    )
    assert "instead of" not in told_by_run(monkeypatch, tmp_path, *asked)


def test_a_training_that_ends_before_its_weights_is_told_before_it_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = ("--preset", "cora-grace", "--set", "dataset.path=x", "--set", "method.name=progcl")
    assert "warning" not in told_by_run(monkeypatch, tmp_path, *asked)
    output = told_by_run(monkeypatch, tmp_path, *asked, "--set", "train.epochs=100")
    assert "warning: negatives will never be weighted: method.start_epoch=100 uniform epochs" in output


@pytest.mark.parametrize("name", ["augcl-alpha", "augcl-estimators", "augcl-reward"])
def test_studies_of_augcl_have_graces_settings_of_the_data_set_in_every_cell(name: str) -> None:
    """They rest on the presets of GRACE and change the method."""
    cells = study_cells(read_study(name), seeds="0")
    for cell, config in zip(cells, cell_configs(cells, Path("data")), strict=True):
        grace = load(f"{cell.dataset}-grace")
        assert config.train == grace.train
        shared = set(type(grace.method).model_fields) - {"name"}
        assert [key for key in shared if getattr(config.method, key) != getattr(grace.method, key)] == []
        if config.method.name == "progcl":
            assert config.method.start_epoch == 100


def test_settings_that_play_no_part_are_told_before_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = ("--set", "method.name=nml_gcl", "--set", "method.metric=uniform", "--set", "method.alpha=9")
    output = told_by_run(monkeypatch, tmp_path, *asked, "--set", "dataset.format=synthetic")
    assert "warning: not used under method.metric=uniform: method.alpha" in output


def test_smoothing_that_a_method_does_without_is_told_before_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = ("--preset", "dblp-hgcvae", "--set", "dataset.path=x")
    assert "warning" not in told_by_run(monkeypatch, tmp_path, *asked)
    output = told_by_run(monkeypatch, tmp_path, *asked, "--set", "smooth.standardise=true")
    assert "warning: smooth.standardise: of use to the control smoothed alone" in output
