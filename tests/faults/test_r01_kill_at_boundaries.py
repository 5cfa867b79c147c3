"""R1: killed right before and right after a stage's publication; what was finished is never computed again.

Run as a program this file is the driver: ``python test_r01_kill_at_boundaries.py FOLDER``.
"""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.faults.injection import fork, load_libraries, program, quick_contracts, quick_keys, quick_syncs

STAGES = ("ingest", "smooth", "train", "uncertainty", "cluster", "evaluate")
BOUNDARIES = [(stage, moment) for stage in STAGES for moment in ("before", "after")]


def run(store: Path, result: Path, kill: tuple[str, str] | None = None) -> None:
    """Run to the evaluation and write what was computed, unless killed at the boundary on the way."""
    from tasks.store import Store
    from tests.tiny_runs import run_direct, tiny

    quick_contracts()
    publish = Store.publish

    def killed_publish(self, folder, manifest, **options):  # type: ignore[no-untyped-def]
        with (result.parent / "executions").open("a") as log:
            log.write(f"{manifest.stage}\n")
        if kill == (manifest.stage, "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        published = publish(self, folder, manifest, **options)
        if kill == (manifest.stage, "after"):
            os.kill(os.getpid(), signal.SIGKILL)
        return published

    Store.publish = killed_publish  # type: ignore[method-assign]
    found = run_direct(tiny(), store, until="evaluate")
    result.write_text(json.dumps({"ran": found.ran, "digests": found.digests}))


def drive(folder: Path) -> None:
    """One store, killed at one boundary after the other; prints executions, the last run, the undisturbed."""
    from tasks.store import Store

    load_libraries()
    quick_keys()
    quick_syncs()
    assert fork(lambda: run(folder / "undisturbed", folder / "undisturbed.json")) == 0
    (folder / "executions").unlink()
    for count, (stage, moment) in enumerate(BOUNDARIES):
        code = fork(lambda s=stage, m=moment: run(folder / "store", folder / "no.json", (s, m)))  # type: ignore[misc]
        assert code == -signal.SIGKILL, f"{moment} {stage}: {code}"
        published = {name for name, _ in Store(folder / "store").folders()}
        assert published == set(STAGES[: (count + 1) // 2]), f"{moment} {stage}"
        assert not list((folder / "store" / ".tmp").iterdir())
    assert fork(lambda: run(folder / "store", folder / "last.json")) == 0
    print(json.dumps((folder / "executions").read_text().split()))
    print((folder / "last.json").read_text())
    print((folder / "undisturbed.json").read_text())


@pytest.mark.fault
@pytest.mark.slow
def test_pipeline_survives_sigkill_before_and_after_every_publication(tmp_path: Path) -> None:
    executions, last, undisturbed = map(json.loads, program(__file__, tmp_path).splitlines()[-3:])
    assert undisturbed["ran"] == list(STAGES)
    assert executions == [stage for stage in STAGES for _ in range(2)], "lost once, published once, no more"
    assert last["ran"] == []
    assert last["digests"] == undisturbed["digests"]


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
