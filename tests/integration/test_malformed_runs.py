"""Every malformed source ends a run with its exit code and one clear line, and leaves nothing half-made."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.config import PipelineConfig, load_config
from flows.exit_codes import describe, exit_code
from flows.wiring import PipelineState, request_ingest
from tasks.ingest import INGEST
from tasks.store import Store
from tests.malformed import MALFORMED, MARKER

REPOSITORY = Path(__file__).resolve().parents[2]
END_TO_END = ("pickle_system", "csv_unknown_endpoint", "csv_nan_feature")


def settings(name: str, folder: Path) -> list[str]:
    folder.mkdir()
    return [f"dataset.{field}={value}" for field, value in MALFORMED[name].build(folder).items()]


def nothing_half_made(store: Store, error: str) -> None:
    assert not list(store.folders())
    assert not list((store.root / ".tmp").iterdir())
    kept = [path for path in (store.root / ".quarantine").iterdir() if path.is_dir()]
    assert len(kept) == (error == "ContractViolation"), "what broke a contract, and nothing else, is kept"


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_source_is_refused_with_its_exit_code(name: str, tmp_path: Path) -> None:
    case, store = MALFORMED[name], Store(tmp_path / "store")
    config: PipelineConfig = load_config(preset="none", overrides=settings(name, tmp_path / "source"))[0]
    with pytest.raises(Exception) as caught:
        INGEST.execute(request_ingest(PipelineState(config, store)), store)
    error = caught.value
    assert exit_code(error) == case.exit_code, repr(error)
    line = describe(error)
    assert re.search(case.match, line), line
    assert "\n" not in line
    assert "Traceback" not in line
    assert line.isprintable()
    assert line.startswith("contract violated: " if case.exit_code == 3 else "source unreadable: ")
    nothing_half_made(store, type(error).__name__)
    assert not (tmp_path / "source" / MARKER).exists(), "nothing in the source was executed"
    assert not list((store.root / ".scratch").glob("*/*/*.bin"))


@pytest.mark.slow
@pytest.mark.parametrize("name", END_TO_END)
def test_the_command_line_says_it_in_one_line(name: str, tmp_path: Path, prefect_api: str) -> None:
    case = MALFORMED[name]
    overrides = [f"--set={item}" for item in settings(name, tmp_path / "source")]
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "run", "--preset=none", *overrides,
         "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False, timeout=120, cwd=REPOSITORY,
        env=os.environ | {"PREFECT_API_URL": prefect_api},
    )  # fmt: skip
    assert done.returncode == case.exit_code
    assert "Traceback" not in done.stderr + done.stdout
    assert re.search(case.match, " ".join(done.stderr.split()))
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    nothing_half_made(Store(tmp_path / "store"), "ContractViolation" if name == "csv_nan_feature" else "")
    assert (tmp_path / "out" / "failure.json").exists()
    assert not (tmp_path / "out" / "run.json").exists()
    assert not (tmp_path / "source" / MARKER).exists()
