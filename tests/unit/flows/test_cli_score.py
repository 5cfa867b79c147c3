"""What `gclflow score` refuses before anything is started."""

from pathlib import Path

import pytest

from flows.config import ConfigurationError
from flows.score_running import parse_bounds, run_score
from gcl.evaluation.embedding_shift import ShiftConfig
from tasks.errors import StoreUnusable
from tasks.store import Store


def test_bounds_are_numbers_or_none() -> None:
    found = parse_bounds(["max_shift=none", "max_known_shift=0.5", "num_known=10"])
    assert found == ShiftConfig(max_shift=None, max_known_shift=0.5, num_known=10)
    assert parse_bounds([]) == ShiftConfig()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_shift", "takes KEY=VALUE"),
        ("max_drift=1", "max_drift: Extra inputs are not permitted"),
        ("max_outlier_share=2", "max_outlier_share: Input should be less than or equal to 1"),
        ("max_shift=much", "max_shift: Input should be a valid number"),
    ],
)
def test_other_bounds_are_refused_in_one_line(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        parse_bounds([text])
    assert "\n" not in str(caught.value)


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    options = {"path": None, "nodes": "new", "settings": (), "out": tmp_path / "out"}
    with pytest.raises(StoreUnusable, match="there is no store"):
        run_score(model="nightly", store=str(tmp_path / "store"), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    Store(tmp_path / "store")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigurationError, match="--out"):
        run_score(
            model="nightly",
            path=None,
            nodes="new",
            settings=(),
            store=str(tmp_path / "store"),
            out=tmp_path / "out",
        )
