"""S9: a field of a configuration that does not fit is named by its path, and nothing is ignored."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from flows.config import ConfigurationError, PipelineConfig, load_config, validate_config

NUMBERS: list[Any] = [float("nan"), float("inf"), float("-inf"), 1e309, -1e308, -1, 10**40, -(10**40), True]
STRANGE: list[Any] = [*NUMBERS, None, "x\0", "<script>", [], [[]], {}, {"a": {}}, "9" * 400, "\ud800"]


def leaves(config: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every field that is a value, with its path."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


PLAIN = load_config(preset="none", overrides=["dataset.format=synthetic"])[0]
DOCUMENT = PLAIN.model_dump()
LEAVES = dict(leaves(PLAIN))
COUNTS = [path for path, value in LEAVES.items() if type(value) is int]
# Above what there is to count, these mean "never"; a seed may be as long as one likes.
WITHOUT_END = {
    ("metapaths", "max_entries"), ("train", "checkpoint_every"), ("cluster", "minibatch_threshold"),
    ("evaluate", "minibatch_threshold"), ("evaluate", "split_seed"),
}  # fmt: skip
FRACTIONS = [path for path, value in LEAVES.items() if type(value) is float]


def with_value(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return document


def dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)


def test_there_is_something_to_inject_into() -> None:
    assert len(COUNTS) > 10
    assert len(FRACTIONS) > 10


def refused(path: tuple[str, ...], value: Any) -> bool:
    """Whether the value is refused, by the path of its field."""
    try:
        validate_config(with_value(path, value))
    except ConfigurationError as error:
        return any(
            line.startswith((f"{dotted(path)}:", f"{dotted(path)}.")) for line in str(error).split("\n")
        )
    return False


@pytest.mark.parametrize("path", COUNTS + FRACTIONS, ids=dotted)
def test_number_that_is_none_is_refused_by_its_path(path: tuple[str, ...]) -> None:
    values = [float("nan"), float("inf"), 1e309, -(10**40), "many", [1]]
    assert [value for value in values if not refused(path, value)] == []


@pytest.mark.parametrize("path", COUNTS, ids=dotted)
def test_count_that_is_none_is_refused_by_its_path(path: tuple[str, ...]) -> None:
    values = [-1, 0.5] if path in WITHOUT_END else [-1, 0.5, 2**70, 10**400]
    assert [value for value in values if not refused(path, value)] == []


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_anything_anywhere_is_taken_as_valid_or_refused_by_its_path(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(LEAVES)))
    value = data.draw(st.sampled_from(STRANGE) | st.floats() | st.integers() | st.text(max_size=5))
    try:
        config = validate_config(with_value(path, value))
    except ConfigurationError as error:
        text = str(error)
        assert dotted(path[:1]) in text
        assert len(text) < 5000
    else:
        assert json.loads(config.model_dump_json()) is not None
        assert "NaN" not in config.model_dump_json()
        assert "Infinity" not in config.model_dump_json()


SECTIONS = sorted({path[:-1] for path in LEAVES})


@settings(max_examples=60, deadline=None)
@given(section=st.sampled_from(SECTIONS), name=st.from_regex(r"\A[a-z_]{1,20}\Z"))
def test_unknown_key_is_refused_by_its_path(section: tuple[str, ...], name: str) -> None:
    path = (*section, name)
    if path in LEAVES or path in SECTIONS or name in PipelineConfig.model_fields:
        return
    with pytest.raises(ConfigurationError, match=rf"(?m)^{dotted(path)}: there is no such field"):
        validate_config(with_value(path, 1))


@pytest.mark.parametrize(
    "key", ["__class__", "__dict__", "model_config", "model_fields", "_private", "__init__"]
)
@pytest.mark.parametrize("section", ["", "train.", "dataset.", "method."])
def test_names_of_python_are_no_fields(section: str, key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{section}{key}"):
        load_config(preset="none", overrides=["dataset.format=synthetic", f"{section}{key}=1"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.learning_rate=nan", "train.learning_rate"),
        ("train.learning_rate=1e309", "train.learning_rate"),
        ("train.epochs=-5", "train.epochs"),
        (f"train.epochs={10**30}", "train.epochs"),
        ("method.name=../../evil", "method"),
        ("dataset.format=pickle", "dataset"),
        ("seed=" + "9" * 5000, "seed"),
    ],
)
def test_override_that_does_not_fit_is_refused_by_its_path(override: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load_config(preset="none", overrides=[override])


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_text_that_cannot_be_written_is_refused_by_its_path(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"smooth\.dask_address"):
        validate_config({"smooth": {"dask_address": text}})
