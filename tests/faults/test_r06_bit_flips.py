"""R6: one flipped bit in any file of a finished run, manifests too, is found."""

import random
from pathlib import Path

import pytest

from tasks.errors import ArtifactCorrupted, StoreUnusable
from tasks.store import MARKER, Store
from tests.faults.injection import flip_bit
from tests.tiny_runs import run_direct, tiny

pytestmark = [pytest.mark.fault, pytest.mark.slow]


def files_of(store: Store) -> list[tuple[str, str, Path, int]]:
    """Stage, key, path and size of every file of every stage folder."""
    return [
        (stage, key, path, path.stat().st_size)
        for stage, key in store.folders()
        for path in sorted(store.stage_folder(stage, key).rglob("*"))
        if path.is_file() and path.stat().st_size
    ]


@pytest.mark.parametrize("num_flips", [2000, pytest.param(50_000, marks=pytest.mark.nightly)])
def test_every_flipped_bit_is_found_and_confined(store_copy: Path, num_flips: int) -> None:
    """Half of the flips fall where most bytes are, half into files drawn alike, so small ones get theirs."""
    store, draws = Store(store_copy), random.Random(6)
    files = files_of(store)
    chosen = draws.choices(files, weights=[size for *_, size in files], k=num_flips // 2)
    chosen += draws.choices(files, k=num_flips - len(chosen))
    missed = []
    for stage, key, path, size in chosen:
        position, bit = draws.randrange(size), draws.randrange(8)
        flip_bit(path, position, bit)
        try:
            store.verify(stage, key, full=True)
            missed.append((stage, path.name, position, bit))
        except ArtifactCorrupted as error:
            assert error.uri == f"{stage}/{key}"
        flip_bit(path, position, bit)
    assert missed == [], f"{len(missed)} of {num_flips} flips went unseen"
    assert len({path for _, _, path, _ in chosen}) > 0.9 * len(files)
    assert {path.name for _, _, path, _ in chosen} >= {
        "manifest.json",
        "checkpoint.safetensors",
        "report.html",
    }
    for stage, key in store.folders():
        store.verify(stage, key, full=True)


def test_flips_are_found_without_asking_for_full_hashes_in_a_process_that_has_not_seen_the_file(
    store_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a normal run does on open: a file is hashed once a process, unless it changed since."""
    import tasks.store

    store, draws = Store(store_copy), random.Random(7)
    for stage, key, path, size in draws.sample(files_of(store), k=40):
        store.verify(stage, key)  # seen, and intact
        position, bit = draws.randrange(size), draws.randrange(8)
        flip_bit(path, position, bit)
        monkeypatch.setattr(tasks.store, "_verified", {})
        with pytest.raises(ArtifactCorrupted):
            store.verify(stage, key)
        flip_bit(path, position, bit)


def test_a_flipped_bit_of_the_marker_is_refused_or_harmless(store_copy: Path) -> None:
    content = (store_copy / MARKER).read_bytes()
    for position in range(len(content)):
        for bit in range(8):
            flip_bit(store_copy / MARKER, position, bit)
            try:
                Store(store_copy)
            except StoreUnusable:
                pass
            else:  # white space for white space: it still says the same
                assert (store_copy / MARKER).read_bytes().split() == content.split()
            flip_bit(store_copy / MARKER, position, bit)


def test_a_run_after_a_flip_computes_that_stage_again_alone(store_copy: Path) -> None:
    before = run_direct(tiny(), store_copy, until="evaluate").digests
    store, draws = Store(store_copy), random.Random(8)
    candidates = [file for file in files_of(store) if file[0] not in ("report",)]
    for stage, _, path, size in draws.sample(candidates, k=3):
        flip_bit(path, draws.randrange(size), draws.randrange(8))
        again = run_direct(tiny(), store_copy, until="evaluate")
        assert again.ran == [stage], path.name
        assert again.digests == before
