"""The register of runs: entries, the last good run, pins, roots, and what damage to its files does."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.artifact import Artifact
from tasks.runs import Roots, RunEntry, Runs, UnknownRun, new_run_id
from tasks.store import Store
from tests.tiny_runs import key_of


def entry(day: int, series: str = "nightly", *, good: bool = True, **changes: Any) -> RunEntry:
    key = key_of(f"{series} {day}")
    embeddings = Artifact(
        kind="embeddings", uri=f"train/{key}/embeddings", digest=key_of("z"), num_bytes=1, num_rows={}
    )
    fields: dict[str, Any] = {
        "series": series,
        "run": new_run_id(datetime(2026, 3, day, 2, tzinfo=UTC)),
        "finished": f"2026-03-{day:02d}T02:10:00+00:00",
        "config": {"train": {"epochs": 2}},
        "preset": None,
        "seed": 0,
        "keys": {"train": key, "cluster": key_of("cluster")},
        "artifacts": {"embeddings": embeddings},
        "metrics": [{"metric": "accuracy", "value": 0.5, "std": None}],
        "good": good,
        "reason": None if good else "accuracy fell",
    }
    return RunEntry(**fields | changes)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(Store(tmp_path / "store"))


def file_of(runs: Runs, run: RunEntry) -> Path:
    return runs.folder / run.series / f"{run.run}.json"


def test_run_ids_sort_by_time_and_differ() -> None:
    moment = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    assert new_run_id(moment).startswith("20260301T235959999Z-")
    assert new_run_id(moment) != new_run_id(moment)
    assert new_run_id(moment) < new_run_id(datetime(2026, 3, 2, tzinfo=UTC))


def test_entries_come_back_oldest_first(runs: Runs) -> None:
    recorded = [runs.record(entry(day, series)) for day, series in ((3, "b"), (1, "b"), (2, "a"))]
    assert Runs(Store(runs.store.root)).entries() == sorted(recorded, key=lambda e: e.run)
    assert [e.run for e in runs.entries("b")] == [recorded[1].run, recorded[0].run]
    assert runs.series() == ["a", "b"]
    assert runs.entries("c") == []


def test_an_empty_register_needs_no_folder(runs: Runs) -> None:
    assert (runs.entries(), runs.series(), runs.last_good("nightly")) == ([], [], None)
    assert runs.roots() == Roots(frozenset())
    assert not runs.folder.exists()


def test_record_returns_what_will_be_read(runs: Runs) -> None:
    recorded = runs.record(entry(1, metrics=[{"value": float("nan"), "n": 3}]))
    assert recorded.metrics == [{"value": None, "n": 3}]
    assert runs.record(recorded) == recorded, "the same entry twice is one entry"
    assert runs.entries() == [recorded]


def test_another_run_of_the_same_id_is_refused(runs: Runs) -> None:
    recorded = runs.record(entry(1))
    with pytest.raises(ValueError, match="another run"):
        runs.record(recorded.model_copy(update={"seed": 1}))
    assert runs.entries() == [recorded]


@pytest.mark.parametrize("series", ["", "..", "a/b", "A", "-a", "a" * 65, ".hidden", "a\n", "naïve"])
def test_a_series_that_is_no_name_reaches_no_path(runs: Runs, series: str) -> None:
    with pytest.raises(ValidationError):
        entry(1, series)
    for call in (runs.entries, runs.last_good, runs.forget):
        with pytest.raises(ValueError, match="name of a series"):
            call(series)
    with pytest.raises(ValidationError):
        runs.record(entry(1).model_copy(update={"series": series}))
    with pytest.raises(UnknownRun):
        runs.pin(series)
    assert not list(runs.store.root.parent.rglob("*.json.json"))


@pytest.mark.parametrize("run", ["../../x", "20260301T020000000Z-zzzzzz", "20260301T020000000Z-abcdef\n"])
def test_a_run_that_is_no_id_reaches_no_path(runs: Runs, run: str) -> None:
    with pytest.raises(ValidationError):
        runs.record(entry(1).model_copy(update={"run": run}))


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "flipped":
        path.write_bytes(content.replace(b'"seed":0', b'"seed":1'))
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "nested":
        path.write_bytes(b"[" * 100_000)
    elif kind == "linked":
        path.rename(path.with_name("elsewhere"))
        path.symlink_to(path.with_name("elsewhere"))
    else:
        path.write_bytes(json.dumps({"body": {"py/object": "os.system"}, "checksum": ""}).encode())


@pytest.mark.parametrize("kind", ["flipped", "truncated", "empty", "nested", "linked", "foreign"])
def test_a_damaged_entry_is_skipped_with_a_warning(
    runs: Runs, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = runs.record(entry(1)), runs.record(entry(2))
    damage(file_of(runs, bad), kind)
    with caplog.at_level(logging.WARNING):
        assert runs.entries() == [good]
    assert bad.run in caplog.text


def test_an_entry_under_another_name_is_skipped(runs: Runs) -> None:
    recorded = runs.record(entry(1))
    file_of(runs, recorded).rename(file_of(runs, entry(2)))
    assert runs.entries() == []


def test_the_last_good_run_is_what_was_advanced(runs: Runs) -> None:
    first, second = runs.record(entry(1)), runs.record(entry(2))
    runs.advance(first)
    assert runs.last_good("nightly") == first, "a good run counts once it is advanced to"
    runs.advance(second)
    runs.record(entry(3, good=False))
    assert runs.last_good("nightly") == second
    assert runs.find("nightly") == second


def test_only_recorded_good_runs_become_last_good(runs: Runs) -> None:
    with pytest.raises(ValueError, match="accuracy fell"):
        runs.advance(runs.record(entry(1, good=False)))
    with pytest.raises(UnknownRun):
        runs.advance(entry(2))
    assert runs.last_good("nightly") is None


@pytest.mark.parametrize("kind", ["truncated", "empty", "nested", "linked", "foreign"])
def test_a_damaged_pointer_means_the_newest_good_run(runs: Runs, kind: str) -> None:
    old, good = runs.record(entry(1)), runs.record(entry(2))
    runs.record(entry(3, good=False))
    runs.advance(old)
    pointer = runs.folder / "nightly" / "last-good.json"
    damage(pointer, kind)
    assert runs.last_good("nightly") == good
    runs.advance(old)
    assert runs.last_good("nightly") == old, "advancing mends the pointer"


def test_a_pointer_to_a_damaged_run_means_the_newest_good_one(runs: Runs) -> None:
    good, pointed = runs.record(entry(1)), runs.record(entry(2))
    runs.advance(pointed)
    damage(file_of(runs, pointed), "truncated")
    assert runs.last_good("nightly") == good


def test_find_takes_a_prefix_that_fits_one_run_only(runs: Runs) -> None:
    first = runs.record(entry(1))
    with pytest.raises(UnknownRun):
        runs.find("")
    second = runs.record(entry(2))
    assert runs.find(first.run[:8]) == first
    assert runs.find(second.run) == second
    for unknown in ("", "202603", "2027", "other", "../x"):
        with pytest.raises(UnknownRun):
            runs.find(unknown)
    runs.record(entry(1, "broken", good=False))
    with pytest.raises(UnknownRun, match="no good run"):
        runs.find("broken")


def test_pins_stay_until_they_are_taken_away(runs: Runs) -> None:
    recorded = runs.record(entry(1))
    assert runs.pin(recorded.run[:10]).pinned
    assert runs.entries()[0].pinned
    assert runs.unpin(recorded.run) == recorded
    assert runs.entries() == [recorded]


def test_roots_are_pinned_and_last_good_runs(runs: Runs) -> None:
    pinned, good = runs.record(entry(1, good=False)), runs.record(entry(2))
    runs.record(entry(3, good=False))
    other = runs.record(entry(4, "weekly"))
    runs.pin(pinned.run)
    runs.advance(good)
    wanted = {("train", e.keys["train"]) for e in (pinned, good, other)}
    assert runs.roots().addresses == wanted | {("cluster", key_of("cluster"))}
    runs.unpin(pinned.run)
    assert ("train", pinned.keys["train"]) not in runs.roots().addresses


def test_roots_name_the_folders_of_artifacts_too(runs: Runs) -> None:
    runs.pin(runs.record(entry(1, keys={})).run)
    assert runs.roots().addresses == {("train", key_of("nightly 1"))}


def test_roots_say_what_cannot_be_read_until_it_is_back_or_gone(runs: Runs) -> None:
    bad, good = runs.record(entry(1)), runs.record(entry(2))
    runs.advance(good)
    content = file_of(runs, bad).read_bytes()
    damage(file_of(runs, bad), "flipped")
    (line,) = runs.roots().unreadable
    assert line.startswith(f"run nightly/{bad.run}: ") and "checksum" in line
    runs.verify()
    (line,) = runs.roots().unreadable
    assert line.startswith(f"run nightly/{bad.run}: in the quarantine, nightly-{bad.run}.json-")
    quarantine = runs.store.root / ".quarantine"
    assert runs.roots().evidence == {path.name for path in quarantine.iterdir()}
    file_of(runs, bad).write_bytes(content)
    assert runs.roots().unreadable == () and not runs.roots().evidence, "a copy has been put back"
    file_of(runs, bad).unlink()
    assert runs.roots().unreadable
    for path in quarantine.iterdir():
        path.unlink()
    assert runs.roots().unreadable == (), "somebody has looked at it and deleted it"


@pytest.mark.parametrize("kind", ["truncated", "gone"])
def test_without_a_pointer_every_good_run_is_a_root(runs: Runs, kind: str) -> None:
    accepted, newer = runs.record(entry(1)), runs.record(entry(2))
    runs.record(entry(3, good=False))
    runs.advance(accepted)
    pointer = runs.folder / "nightly" / "last-good.json"
    damage(pointer, kind) if kind != "gone" else pointer.unlink()
    kept = {key for stage, key in runs.roots().addresses if stage == "train"}
    assert kept == {accepted.keys["train"], newer.keys["train"]}


def test_forget_drops_the_oldest_but_pinned_and_last_good_runs(runs: Runs) -> None:
    recorded = [runs.record(entry(day)) for day in range(1, 8)]
    runs.pin(recorded[1].run)
    runs.advance(recorded[2])
    doomed = [recorded[0].run, recorded[3].run]
    assert runs.forget("nightly", keep=3, dry_run=True) == doomed
    assert len(runs.entries()) == 7
    assert runs.forget("nightly", keep=3) == doomed
    assert [e.run for e in runs.entries()] == [recorded[day].run for day in (1, 2, 4, 5, 6)]
    assert runs.forget("nightly", keep=3) == []
    assert runs.forget("nightly", keep=0) == [recorded[day].run for day in (4, 5, 6)]
    with pytest.raises(ValueError, match="0 or more"):
        runs.forget("nightly", keep=-1)


def test_a_pin_is_not_lost_to_runs_forgotten_at_the_same_time(runs: Runs) -> None:
    recorded = [runs.record(entry(day)) for day in range(1, 20)]
    with ThreadPoolExecutor(4) as pool:
        pins = [pool.submit(Runs(runs.store).pin, recorded[0].run) for _ in range(3)]
        pool.submit(Runs(runs.store).forget, "nightly", keep=1).result()
    survived = any(pin.exception() is None for pin in pins)
    assert survived == (recorded[0].run in {e.run for e in runs.entries()})


def test_files_are_private_and_nothing_is_left_of_writing_them(runs: Runs) -> None:
    recorded = runs.record(entry(1))
    runs.advance(recorded)
    assert file_of(runs, recorded).stat().st_mode & 0o777 == 0o600
    assert runs.folder.stat().st_mode & 0o777 == 0o700
    assert not list((runs.store.root / ".tmp").iterdir())
    assert sorted(path.name for path in (runs.folder / "nightly").iterdir()) == [
        f"{recorded.run}.json",
        "last-good.json",
    ]


def test_a_crash_before_the_rename_leaves_the_old_file(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = runs.record(entry(1))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        runs.pin(recorded.run)
    assert runs.entries() == [recorded]


def test_bytes_are_synced_before_the_rename_and_the_folder_after(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def logged_fsync(descriptor: int) -> None:
        is_folder = Path(f"/proc/self/fd/{descriptor}").resolve().is_dir()
        calls.append("fsync folder" if is_folder else "fsync file")
        fsync(descriptor)

    def logged_replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(self, target)

    runs.record(entry(1))
    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    runs.record(entry(2))
    assert calls == ["fsync file", "rename", "fsync folder"]


def test_verification_moves_damaged_entries_to_the_quarantine(runs: Runs) -> None:
    bad, good = runs.record(entry(1)), runs.record(entry(2))
    damage(file_of(runs, bad), "truncated")
    (message,) = runs.verify(quarantine=False)
    assert message.startswith(f"run nightly/{bad.run}: ")
    assert file_of(runs, bad).exists()
    assert runs.verify() == [message]
    assert runs.verify() == [] and runs.entries() == [good]
    kept = [path for path in (runs.store.root / ".quarantine").iterdir() if path.suffix != ".json"]
    assert [bad.run in path.name for path in kept] == [True]


@pytest.mark.parametrize("content", [b"", b"{", b'{"run": 1}', b"not json"])
def test_verification_moves_a_damaged_pointer_to_the_quarantine(runs: Runs, content: bytes) -> None:
    good = runs.record(entry(1))
    runs.advance(good)
    assert runs.verify() == []
    pointer = runs.folder / "nightly" / "last-good.json"
    pointer.write_bytes(content)
    (message,) = runs.verify()
    assert message.startswith("last good run of nightly: ")
    assert not pointer.exists()
    assert runs.verify() == []
    assert runs.last_good("nightly") == good
