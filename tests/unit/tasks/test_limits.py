"""A stage that cannot fit says so before it begins: by how much, and what to change."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from flows.config import load_config
from gcl.errors import UnsuitableSetting
from tasks import limits
from tasks.limits import DoesNotFit, Estimate, require_fit, total_memory
from tasks.train import TrainStageConfig, estimate
from tasks.work import Work
from tests.tiny_runs import run_direct, tiny

GB = 10**9
REPOSITORY = Path(__file__).resolve().parents[3]


def test_what_fits_passes(tmp_path: Path) -> None:
    require_fit("smooth", Estimate(), memory_limit=None, folder=tmp_path)
    require_fit("smooth", Estimate({"the graph": GB}, {"edges": GB}), memory_limit=64 * GB, folder=tmp_path)


def test_too_much_memory_is_refused_with_its_largest_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "anonymous_bytes", lambda: 10**8)
    estimate = Estimate({"the graph": 3 * GB, "a block": 2 * GB, "dust": 1}, advice="set fewer columns")
    with pytest.raises(DoesNotFit) as caught:
        require_fit("smooth", estimate, memory_limit=4 * GB, folder=tmp_path)
    text = str(caught.value)
    assert text.startswith("smooth: memory of about 5.10 GB")
    assert "the graph 3.00 GB, a block 2.00 GB" in text
    assert text.endswith("memory_limit allows 4.00 GB: set fewer columns")
    assert isinstance(caught.value, UnsuitableSetting), "ends with the exit code of settings"


def test_without_a_limit_the_machine_is_the_limit(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="this machine has"):
        require_fit("smooth", Estimate({"x": total_memory() + 1}), memory_limit=None, folder=tmp_path)


def test_too_much_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match=rf"train: disk of about .* and {tmp_path} has"):
        require_fit("train", Estimate(disk={"rows": 10**18}), memory_limit=None, folder=tmp_path)


@pytest.mark.parametrize(("content", "expected"), [("1000\n", 1000), ("max\n", None), (None, None)])
def test_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, expected: int | None
) -> None:
    monkeypatch.setattr(limits, "_CGROUP", tmp_path)
    machine = total_memory()
    if content is not None:
        (tmp_path / "memory.max").write_text(content)
    assert total_memory() == (expected or machine)


def test_a_stage_that_cannot_fit_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "total_memory", lambda: 300 << 20)
    monkeypatch.setattr(limits, "anonymous_bytes", lambda: 299 << 20)
    with pytest.raises(DoesNotFit, match="smooth: memory"):
        run_direct(tiny("dataset.nodes=50000"), tmp_path / "store", until="smooth")
    assert not (tmp_path / "store" / "smooth").exists()


def test_a_limit_changes_no_result(tmp_path: Path) -> None:
    free = run_direct(tiny(), tmp_path / "a", until="smooth")
    limited = run_direct(tiny("memory_limit=8GB"), tmp_path / "b", until="smooth")
    assert free.digests == limited.digests
    assert free.keys == limited.keys


@pytest.mark.parametrize(("text", "expected"), [("8GB", 8 * GB), ("8GiB", 8 << 30), ("none", None)])
def test_a_limit_is_written_as_people_write_it(text: str, expected: int | None) -> None:
    assert load_config(preset="none", overrides=[f"memory_limit={text}"])[0].memory_limit == expected


def test_encoders_side_by_side_are_estimated() -> None:
    facts = {"num_nodes": 20_000, "num_edges": 100_000, "num_features": 500}
    work = SimpleNamespace(inputs={}, metadata=lambda kind: facts)

    def needed(num_encoders: int) -> int:
        method = {"name": "hsan", "num_encoders": num_encoders}
        config = TrainStageConfig.model_validate({"method": method, "train": {}})
        return sum(estimate(cast(Work, work), config).memory.values())

    assert needed(8) == needed(1) + 7 * 4 * 2 * 5 * 20_000 * 1500, "each has structure encoders of its own"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dmat_i", "grace", "hsan"])
def test_training_takes_about_what_was_estimated(tmp_path: Path, method: str) -> None:
    """In a process of its own, since memory that others have used is used again."""
    program = f"""
import json
from pathlib import Path
from flows.wiring import STAGES
from tasks import stage as stages
from tests.tiny_runs import run_direct, tiny
config = tiny("dataset.nodes=4000", "dataset.features=64", "dataset.average_degree=10", "train.epochs=1",
              "train.batch_size=2048", "method.name={method}", "method.embedding_size=256")
store = Path({str(tmp_path)!r})
run_direct(config, store, until="smooth")
estimates = []
stages.require_fit = lambda name, estimate, **options: estimates.append(estimate)
before = stages.PeakMemory()
with before:
    pass
run = run_direct(config, store, until="train")
timing = json.loads(next(store.glob("train/*/volatile/timing.json")).read_text())
print(json.dumps([timing["peak_rss_bytes"] - before.num_bytes, sum(estimates[-1].memory.values())]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr[-2000:]
    taken, estimated = json.loads(done.stdout.splitlines()[-1])
    # What importing torch's optimisers and autograd takes is in the first and not in the second.
    assert 0.3 * estimated < taken < 4 * estimated + 250e6, (taken, estimated)
