"""Seeds on the command line, and records of several runs."""

import os
import signal

import pytest

from flows.config import ConfigurationError
from flows.record import Metric, RunRecord, over_seeds
from flows.running import _terminable, merge_records, parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [(None, (5,)), ("0..4", (0, 1, 2, 3, 4)), ("3..3", (3,)), ("0,3,7", (0, 3, 7)), ("1,1", (1,))],
)
def test_seeds_are_a_range_or_a_list(text: str | None, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text, default=5) == seeds


@pytest.mark.parametrize(
    "text", ["", "a", "4..0", "0..", "..", "1..2..3", "-1", "0..1000", "0..999999999999", "1.5", "2147483648"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--seeds takes"):
        parse_seeds(text, default=0)


def metric(value: float | None, **changes: object) -> Metric:
    fields = {
        "task": "classification", "protocol": "p", "split": "test", "embedding": "method",
        "metric": "accuracy", "value": value, "std": 0.5, "n": 10, "over": "splits",
    }  # fmt: skip
    return Metric.model_validate(fields | changes)


def test_metrics_over_seeds_are_mean_and_sample_deviation() -> None:
    (summary,) = over_seeds([[metric(1.0)], [metric(2.0)], [metric(6.0)]])
    assert summary.value == 3.0
    assert summary.std == pytest.approx(7**0.5)
    assert (summary.n, summary.over) == (3, "encoder seeds")


def test_one_run_keeps_its_own_spread() -> None:
    assert over_seeds([[metric(1.0)]]) == [metric(1.0)]


def test_values_that_a_run_lacks_are_left_out_and_counted_so() -> None:
    runs = [[metric(1.0), metric(3.0, metric="nmi")], [metric(None)]]
    by_name = {m.metric: m for m in over_seeds(runs)}
    assert (by_name["accuracy"].value, by_name["accuracy"].n, by_name["accuracy"].std) == (1.0, 1, 0.0)
    assert (by_name["nmi"].value, by_name["nmi"].n) == (3.0, 1)
    (none,) = over_seeds([[metric(None)], [metric(None)]])
    assert (none.value, none.n) == (None, 0)


@pytest.mark.parametrize("field", ["task", "protocol", "split", "embedding", "metric"])
def test_different_measurements_are_never_averaged(field: str) -> None:
    other = metric(2.0, **{field: "other"})
    assert len(over_seeds([[metric(1.0), other], [metric(1.0), other]])) == 2


def test_merged_records_keep_every_seed_and_stage() -> None:
    records = [
        RunRecord(
            config={}, seeds=(seed,), versions={}, device="cpu", machine={}, store="s",
            stages=[{"stage": "train", "seed": seed}], metrics=[metric(float(seed))],
            oracle_metrics=[metric(10.0 + seed, protocol="kmeans-oracle", split="oracle")],
            notes=["of every seed", f"of seed {seed}"],
        )
        for seed in (1, 2)
    ]  # fmt: skip
    merged = merge_records(records)
    assert merged.seeds == (1, 2)
    assert [stage["seed"] for stage in merged.stages] == [1, 2]
    assert merged.metrics[0].value == 1.5
    assert len(merged.metrics) == len(merged.oracle_metrics) == 1
    assert (merged.oracle_metrics[0].value, merged.oracle_metrics[0].n) == (11.5, 2)
    assert merged.notes == ["of every seed", "of seed 1", "of seed 2"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stays_the_reason_when_a_library_caught_in_the_middle_says_something_else(
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    with (
        pytest.raises(KeyboardInterrupt, match="SIGTERM" if number == signal.SIGTERM else "^$"),
        _terminable(),
    ):
        try:
            os.kill(os.getpid(), number)
        finally:
            raise ValueError("Task run is not set")
    assert signal.getsignal(number) == before


def test_an_error_without_a_signal_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="broken"), _terminable():
        raise ValueError("broken")
