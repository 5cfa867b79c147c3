"""Runs side by side."""

import json
from pathlib import Path

import pytest

from flows.compare import compare_runs
from flows.config import ConfigurationError


def record(folder: Path, *, epochs: int, accuracy: float | None, extra: bool = False) -> Path:
    metric = {
        "task": "classification", "protocol": "public", "split": "test", "embedding": "method",
        "metric": "accuracy", "value": accuracy, "std": 0.01, "n": 20, "over": "splits",
    }  # fmt: skip
    document = {
        "config": {"train": {"epochs": epochs}, "seed": 0}, "seeds": [0], "versions": {"torch": "2"},
        "device": "cpu", "machine": {}, "store": "s",
        "stages": [{"stage": "train", "state": "ran", "seconds": 1.26}],
        "metrics": [metric] + [metric | {"metric": "nmi"}] * extra,
    }  # fmt: skip
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(document))
    return folder


def test_differing_settings_metrics_and_times_are_shown(tmp_path: Path) -> None:
    one = record(tmp_path / "one", epochs=5, accuracy=0.5)
    two = record(tmp_path / "two", epochs=9, accuracy=None, extra=True)
    found = compare_runs([one, two / "run.json"])
    assert found.config == [("train.epochs", ["5", "9"])]
    rows = dict(found.metrics)
    assert rows["classification public method accuracy"] == ["0.5000 ± 0.0100 (n=20)", "-"]
    assert rows["classification public method nmi"][0] == "-"
    assert found.stages == [("train", ["ran 1.3 s", "ran 1.3 s"])]


def test_what_labels_chose_is_not_compared(tmp_path: Path) -> None:
    runs = [record(tmp_path / name, epochs=5, accuracy=0.5) for name in ("one", "two")]
    for run in runs:
        document = json.loads((run / "run.json").read_text())
        chosen = {"protocol": "kmeans-oracle", "split": "oracle"}
        document["oracle_metrics"] = [document["metrics"][0] | chosen]
        (run / "run.json").write_text(json.dumps(document))
    assert [label for label, _ in compare_runs(runs).metrics] == ["classification public method accuracy"]


def test_one_run_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="two or more"):
        compare_runs([record(tmp_path / "one", epochs=5, accuracy=0.5)])


STAGE_WITHOUT_NAME = (
    '{"config": {}, "seeds": [0], "versions": {}, "device": "cpu", "machine": {}, "store": "s", '
    '"stages": [{"state": "ran", "seconds": 1}], "metrics": []}'
)


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"config": 1}', "[" * 100_000, STAGE_WITHOUT_NAME]
)
def test_a_folder_without_a_readable_record_is_named(tmp_path: Path, content: str | None) -> None:
    good = record(tmp_path / "good", epochs=5, accuracy=0.5)
    (tmp_path / "bad").mkdir()
    if content is not None:
        (tmp_path / "bad" / "run.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"bad.run\.json"):
        compare_runs([good, tmp_path / "bad"])


def test_a_name_no_file_can_have_is_a_wrong_argument(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="too long"):
        compare_runs([tmp_path / ("a" * 5000)] * 2)
