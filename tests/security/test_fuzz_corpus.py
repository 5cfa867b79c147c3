"""Every fuzz target takes its corpus, and a few hundred mutations of it, with declared errors only."""

import random
import resource
from pathlib import Path

import pytest

from tests.fuzz import mutation
from tests.fuzz.mutation import MAX_BYTES, TooSlow, inputs, mutated, time_limit
from tests.fuzz.targets import CORPUS, TARGETS, Target, seeds

NUM_RUNS = 150
MEMORY_BYTES = 1 << 30


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_are_read_or_refused_and_nothing_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutation, "INPUT_SECONDS", 60.0)  # imports, and a busy machine
    before = peak_bytes()
    outcomes = [outcome for _, outcome in inputs(name, TARGETS[name], seed=1, num_runs=NUM_RUNS)]
    assert len(outcomes) >= NUM_RUNS
    assert "read" in outcomes
    assert len(set(outcomes)) > 1, "no mutation was refused"
    assert peak_bytes() - before < MEMORY_BYTES


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read(name: str) -> None:
    """A seed that is refused lets nothing behind its check be fuzzed; regression files may be refused."""
    kept = [path for path in sorted((CORPUS / name).glob("*")) if not path.name.startswith("regression")]
    for data in [*(path.read_bytes() for path in kept), *TARGETS[name].seeds()]:
        assert TARGETS[name](data) == "read" or name == "manifest"


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_corpus_is_small_has_no_pickles_and_belongs_to_targets() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    assert {path.parent.name for path in files} <= set(TARGETS)
    assert not [
        path for path in files if path.parent.name == "planetoid" or b"\x80\x02" in path.read_bytes()[:3]
    ]


def test_mutations_depend_on_the_seed_alone() -> None:
    pool = seeds("csv")

    def some(seed: int) -> list[bytes]:
        draw = random.Random(seed)
        return [mutated(pool[0], pool, TARGETS["csv"].tokens, draw) for _ in range(200)]

    assert some(1) == some(1)
    assert some(1) != some(2)
    assert len(set(some(1))) > 150
    assert max(map(len, some(1))) <= MAX_BYTES


def test_undeclared_error_is_told_with_its_input() -> None:
    def run(data: bytes) -> None:
        raise KeyError("undeclared")

    with pytest.raises(KeyError) as caught:
        list(inputs("csv", Target(run), seed=0, num_runs=1))
    assert caught.value.__notes__[0].startswith("input: b")


def test_endless_input_is_cut_short() -> None:
    with pytest.raises(TooSlow), time_limit(0.05):
        while True:
            pass


def test_every_target_has_its_page(pytestconfig: pytest.Config) -> None:
    text = (Path(__file__).parent / "README.md").read_text("utf-8")
    assert [name for name in TARGETS if f"`{name}`" not in text] == []
