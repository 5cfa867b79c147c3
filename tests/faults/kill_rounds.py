"""Kill a part of a standing installation at a random moment, again and again, and look what is left.

    python -m tests.faults.kill_rounds --rounds 50 --log kill-rounds.jsonl

A round starts the nightly deployment with a seed of its own, waits a random while, and kills the flow's
process, the worker, the server, a Dask worker, worker and flow, or everything at once with SIGKILL. Then it
brings up what stands (`gclflow up`) and starts the same run once more. It passes if that run completes with
the digests of an undisturbed run, the store verifies, nothing unfinished and no process is left, and no run
stays open for two minutes.
"""

import argparse
import json
import random
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from flows.deploy import connect
from flows.home import Home
from flows.server import client_environment
from flows.up import server, worker
from tests.standing import flow_runs, gclflow, processes_of, wait, write_deployments

CONFIG: dict[str, Any] = {
    "dataset": {"format": "synthetic", "name": "tiny", "nodes": 2000, "features": 64, "classes": 4},
    "smooth": {"backend": "dask", "num_workers": 2, "block_columns": 8},
    "method": {"name": "dmat_i", "embedding_size": 16},
    "train": {"epochs": 30, "checkpoint_every": 5},
    "cluster": {"num_clusters": 4, "num_stability_runs": 0},
    "evaluate": {"num_splits": 2, "num_clustering_seeds": 2},
}
TARGETS = ("flow", "worker", "server", "worker and flow", "dask worker", "everything")
STUCK_SECONDS = 120.0
_LONGEST_WAIT = 15.0  # about as long as a run takes once its process is there
_ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class Round:
    """What happened in one round."""

    number: int
    target: str
    after_seconds: float
    was_there: bool
    first: str = ""
    closed_seconds: float = 0.0
    states: dict[str, str] | None = None
    seconds: float = 0.0
    problem: str = ""


def play(folder: Path, number: int, generator: random.Random) -> Round:
    """One round; what goes wrong is its `problem`."""
    home, began = Home(folder / ".gclflow"), time.monotonic()
    target, after = generator.choice(TARGETS), generator.uniform(0.0, _LONGEST_WAIT)
    expected = _undisturbed(number)
    disturbed = _start(home, number)
    if target in ("server", "worker"):  # also before the run has begun
        time.sleep(generator.uniform(0.0, 8.0))
    else:
        _wait_for_victim(home, target, disturbed)
    time.sleep(after / 5 if target == "dask worker" else after)  # Dask's work is short
    played = Round(number, target, round(after, 1), was_there=_kill(home, target))
    gclflow(folder, "up")
    try:
        played.closed_seconds = round(_until_closed(home), 1)
        played.first = _state(home, disturbed)
        again = _start(home, number)
        wait(lambda: _state(home, again) in _ENDED, "the end of the run that was started again", seconds=300)
        assert _state(home, again) == "COMPLETED", f"the run started again is {_state(home, again)}"
        record = json.loads((folder / "out" / "nightly" / "run.json").read_text())
        played.states = {stage["stage"]: stage["state"] for stage in record["stages"]}
        _check(folder, home, record, expected)
    except AssertionError as error:
        played.problem = " ".join(str(error).split())[:500]
    played.seconds = round(time.monotonic() - began, 1)
    return played


def _check(folder: Path, home: Home, record: dict[str, Any], expected: dict[str, str]) -> None:
    digests = {kind: digest for stage in record["stages"] for kind, digest in stage["artifacts"].items()}
    different = sorted(kind for kind in expected if digests.get(kind) != expected[kind])
    assert not different, f"other digests than an undisturbed run's: {different}"
    gclflow(folder, "store", "verify")
    unfinished = [path.name for path in (folder / ".store" / ".tmp").iterdir()]
    assert not unfinished, f"left in .tmp: {unfinished}"
    quarantined = [path.name for path in (folder / ".store" / ".quarantine").iterdir()]
    assert not quarantined, f"in the quarantine: {quarantined}"
    wait(lambda: not _strays(home), f"the end of stray processes {_strays(home)}", seconds=30)


def _strays(home: Home) -> list[str]:
    """Processes of this home that belong neither to the server nor to the worker."""
    standing: set[int] = set()
    for service in (server(home), worker(home)):
        if (process := service.process) is not None:
            standing |= {process.pid, *(child.pid for child in process.children(recursive=True))}
    strays = [process for process in processes_of(home) if process.pid not in standing]
    return [" ".join(_command(process))[:100] for process in strays if _command(process)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _kill(home: Home, target: str) -> bool:
    """SIGKILL the target; returns whether there was one to kill."""
    service, flow = worker(home).process, _flow_process(home)
    victims: dict[str, Callable[[], Sequence[psutil.Process | None]]] = {
        "flow": lambda: [flow],
        "worker": lambda: [service],
        "server": lambda: [server(home).process],
        "worker and flow": lambda: [service, flow],
        "dask worker": lambda: _dask_workers(flow)[:1],
        "everything": lambda: [
            server(home).process,
            service,
            *(flow.children(recursive=True) if flow else ()),
            flow,
        ],
    }
    found = [process for process in victims[target]() if process is not None]
    for process in found:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
    return bool(found)


def _wait_for_victim(home: Home, target: str, run: Any) -> None:
    """Wait until there is something to kill, or the run has ended without."""
    is_there: Callable[[psutil.Process | None], object] = _dask_workers if target == "dask worker" else bool
    wait(
        lambda: is_there(_flow_process(home)) or _state(home, run) in _ENDED,
        f"a {target} to kill",
        seconds=300,
    )


def _flow_process(home: Home) -> psutil.Process | None:
    process = worker(home).process
    runs = process.children() if process else []
    return runs[0] if runs else None


def _dask_workers(flow: psutil.Process | None) -> list[psutil.Process]:
    try:
        below = flow.children(recursive=True) if flow else []
        return [process for process in below if "multiprocessing.spawn" in " ".join(process.cmdline())]
    except psutil.Error:
        return []


def _start(home: Home, seed: int) -> Any:
    """Start the nightly deployment; returns the id of its run."""
    with connect(client_environment(home)) as client:
        nightly = client.read_deployment_by_name("pipeline/nightly")
        parameters = {**nightly.parameters, "config": _config(seed), "series": None}
        return client.create_flow_run_from_deployment(nightly.id, parameters=parameters).id


def _config(seed: int) -> dict[str, Any]:
    """A graph of its own for every round, so that nothing is cached from the last one."""
    return {**CONFIG, "dataset": {**CONFIG["dataset"], "seed": seed}, "seed": seed}


def _state(home: Home, run: Any) -> str:
    with connect(client_environment(home)) as client:
        state = client.read_flow_run(run).state
        return str(state.type.value) if state else "NONE"


def _until_closed(home: Home) -> float:
    """Seconds until every run has ended, also one that was not hit and goes on to its end."""
    began = time.monotonic()
    wait(lambda: not _open_runs(home), "an end of every run", seconds=STUCK_SECONDS)
    return time.monotonic() - began


def _open_runs(home: Home) -> list[str]:
    return [run.name for run in flow_runs(home) if run.state is None or run.state.type.value not in _ENDED]


def _undisturbed(seed: int) -> dict[str, str]:
    """Digests of a run without Prefect in a store of its own."""
    from flows.config import validate_config
    from tests.tiny_runs import run_direct

    with tempfile.TemporaryDirectory() as folder:
        run = run_direct(validate_config(_config(seed)), Path(folder) / "store")
        return run.digests


def main(arguments: Sequence[str] | None = None) -> int:
    """Play rounds; the exit code is 1 where one has a problem."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="number of the first round; it seeds the round")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder unless given")
    parser.add_argument("--log", type=Path, default=Path("kill-rounds.jsonl"))
    options = parser.parse_args(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="gclflow-kill-"))
    folder.mkdir(parents=True, exist_ok=True)
    write_deployments(folder, CONFIG, schedules=[])
    bad = missed = 0
    gclflow(folder, "up")
    try:
        for number in range(options.first, options.first + options.rounds):
            played = play(folder, number, random.Random(number))
            bad += bool(played.problem)
            missed += not played.was_there
            line = json.dumps(asdict(played))
            print(line, flush=True)
            with options.log.open("a") as log:
                log.write(line + "\n")
    finally:
        gclflow(folder, "down")
    print(
        f"{options.rounds - bad} of {options.rounds} rounds without a problem; in {missed} nothing was killed"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
