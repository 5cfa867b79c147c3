"""The command line as a user meets it: what it lists, what it refuses, and with which exit code."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows import show
from flows.cli import app, main
from flows.config import ConfigurationError, PipelineConfig, preset_names
from flows.fetch import PUBLIC
from flows.record import RunRecord
from gcl.methods import METHODS
from gcl.readers import READERS
from tasks.store import Store

FLAGS = {
    "--preset",
    "--config",
    "--set",
    "--seeds",
    "--store",
    "--out",
    "--refresh",
    "--series",
    "--until",
    "--help",
}


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def end_of_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """The exit code of the program."""
    monkeypatch.setattr(sys, "argv", ["gclflow", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_flags_of_run_are_these() -> None:
    """Changing one breaks the scripts of users: a decision, not an accident."""
    import typer

    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    assert {flag for option in command.params for flag in option.opts} | {"--help"} == FLAGS


@pytest.mark.parametrize(
    ("command", "names"),
    [("datasets", [*READERS, *PUBLIC]), ("methods", list(METHODS)), ("presets", list(preset_names()))],
)
def test_what_there_is_can_be_listed(command: str, names: list[str]) -> None:
    output = run(command)
    assert all(name in output for name in names)


def test_every_setting_of_a_stage_is_listed_and_operational_ones_are_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    rows = {line.split("│")[1].strip(): line for line in run("methods").splitlines() if line.startswith("│")}
    for section in ("smooth", "method", "train", "uncertainty", "cluster", "evaluate", "regression"):
        fields = type(PipelineConfig.model_fields[section].default).model_fields
        assert {f"{section}.{name}" for name in fields} <= rows.keys()
    assert "(operational)" in rows["train.checkpoint_every"]
    assert "(operational)" not in rows["train.epochs"]
    assert "probability in [0, 1)" in rows["method.entry_dropout_rate"], "brackets are no markup"


def test_every_command_has_help() -> None:
    for arguments in ([], ["run"], ["fetch"], ["compare"], ["store"], ["store", "gc"], ["store", "show"]):
        assert "Usage" in run(*arguments, "--help")


@pytest.mark.slow
def test_a_store_can_be_listed_shown_verified_and_cleaned(store_copy: Path) -> None:
    store = Store(store_copy)
    manifest = next(m for m in store.manifests() if m.stage == "train")
    digest = manifest.artifacts["embeddings"].digest
    assert digest[:8] in run("store", "ls", "--store", str(store_copy))
    shown = run("store", "show", digest[:12], "--store", str(store_copy))
    assert "embeddings" in shown
    assert "smoothed" in shown, "what it was made from"
    run("store", "verify", "--store", str(store_copy))
    run("store", "gc", "--dry-run", "--keep-days", "0", "--store", str(store_copy))
    assert len(list(store.folders())) == 7


@pytest.mark.slow
def test_a_damaged_store_ends_verify_with_5(store_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    next((store_copy / "train").glob("*/model/config.json")).unlink()
    assert end_of_main(monkeypatch, "store", "verify", "--store", str(store_copy)) == 5
    assert len(list(Store(store_copy).folders())) == 6


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["run", "--until", "nowhere"], 2, "no stage 'nowhere'; the stages are: ingest"),
        (["run", "--refresh", "nowhere"], 2, "no stage 'nowhere'"),
        (["run", "--set", "train.epochs=0"], 2, "train.epochs"),
        (["run", "--preset", "nope"], 2, "no preset 'nope'"),
        (["run", "--preset", "digits", "--seeds", "x"], 2, "--seeds takes"),
        (["run", "--preset", "digits", "--series", "Every Night"], 2, "small letters"),
        (["run", "--preset", "digits", "--series", "n", "--seeds", "0..1"], 2, "one seed"),
        (["store", "accept", "1", "--store", "absent"], 2, "no store at absent"),
        (["notify", "http://127.0.0.1:9/hook"], 2, "gclflow up"),
        (["notify"], 2, "an address"),
        (["run", "--preset", "digits", "--store", "gs://bucket"], 2, "only local directories"),
        (["store", "ls", "--store", "absent"], 2, "no store at absent"),
        (["store", "ls", "--store", "."], 2, "no store at ."),
        (["fetch", "cora", "--to", "/dev/null"], 2, "cannot be written: Not a directory"),
        (["store", "ls", "--store", "file:///absent/store"], 2, "no store at file:///absent/store"),
        (["store", "ls", "--store", "a" * 5000], 2, "no store at aaa"),
        (["run", "--preset", "digits", "--store", "~nobody-of-that-name/store"], 2, "home directory"),
        (["fetch", "nope"], 2, "no public data set 'nope'"),
        (["compare", "one"], 2, "two or more"),
        (["nonsense"], 2, "nonsense"),
        (["run", "--nonsense"], 2, "--nonsense"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_accepted(
    arguments: list[str], code: int, told: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)  # of the session's server
    assert end_of_main(monkeypatch, *arguments) == code
    errors = capfd.readouterr().err
    assert told in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir()), "nothing was started"


@pytest.mark.parametrize("days", ["nan", "-1"])
def test_an_age_that_is_none_collects_nothing(
    days: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path)
    assert end_of_main(monkeypatch, "store", "gc", "--store", str(tmp_path), "--keep-days", days) == 2
    assert "--keep-days takes" in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [["--debug", "compare", "one"], ["compare", "one", "--debug"]])
def test_debug_shows_the_traceback(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gclflow", *arguments])
    with pytest.raises(ConfigurationError):
        main()


def test_compare_prints_both_runs(tmp_path: Path) -> None:
    document = {"config": {}, "seeds": [0], "versions": {}, "device": "cpu", "machine": {}, "store": "s",
                "stages": [], "metrics": []}  # fmt: skip
    for epochs, name in ((5, "one[b]"), (9, "two[]")):
        (tmp_path / name).mkdir()
        record = document | {
            "config": {"train": {"epochs": epochs}, "smooth": {"dask_address": f"[/{name}]"}}
        }
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    output = run("compare", str(tmp_path / "one[b]"), str(tmp_path / "two[]"))
    assert "train.epochs" in output
    assert "[/one[b]]" in output, "brackets are text, not markup"


def test_reports_of_the_seeds_that_ran_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "seed-7").mkdir()
    (tmp_path / "seed-7" / "report.html").write_text("of an earlier run")
    stage = {"stage": "report", "state": "ran", "seconds": 1.0, "peak_rss_bytes": 1, "seed": 0, "reason": "",
             "contracts": {"passed": 1, "failed": 0}}  # fmt: skip
    show.run(
        RunRecord(
            config={},
            seeds=(0, 1),
            versions={},
            device="cpu",
            machine={},
            store="s",
            stages=[stage],
            metrics=[],
        ),
        out=tmp_path,
    )
    told = capsys.readouterr().out
    assert "seed-0/report.html" in told
    assert "seed-1/report.html" in told
    assert "seed-7" not in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "method.name=grace", "--set", "train.epochs=3"],
         "defaults of grace: train.learning_rate=0.0005, train.weight_decay=1e-05"),
        (["--set", "method.name=hsan", "--set", "smooth.filter=ppr", "--preset", "none"],
         "defaults of hsan: train.epochs=400, train.learning_rate=0.001, cluster.normalise=false"),
        (["--set", "method.name=dmat_i"], None),
        (["--set", "method.name=grace", "--preset", "digits"], None),
        (["--config", "run.toml"], None),
    ],
)  # fmt: skip
def test_defaults_of_the_method_that_a_run_took_are_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str | None
) -> None:
    def recorded(config: PipelineConfig, *, preset: str | None, **_: object) -> RunRecord:
        return RunRecord(
            config=config.model_dump(mode="json"), preset=preset, seeds=(0,), versions={}, device="cpu",
            machine={}, store="s", stages=[], metrics=[],
        )  # fmt: skip

    (tmp_path / "run.toml").write_text('[method]\nname = "grace"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.running.run_pipeline", recorded)
    lines = run("run", "--set", "dataset.format=synthetic", *arguments).splitlines()
    assert [line for line in lines if line.startswith("defaults of")] == ([told] if told else [])


def test_defaults_of_each_method_are_listed_with_their_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    lines = run("methods").splitlines()
    for name in METHODS:
        (line,) = [line for line in lines if line.startswith(f"{name} without a preset or file: ")]
        assert "Source: " in line
    (line,) = [line for line in lines if line.startswith("nml_gcl without a preset or file: ")]
    assert "train.epochs=200, train.learning_rate=0.0005, train.weight_decay=0.001" in line
