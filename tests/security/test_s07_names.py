"""S7: a data set's name never becomes a path of its own choosing."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.config import ConfigurationError, validate_config
from gcl.errors import SourceUnreadable
from gcl.readers import READERS, source_files

ALLOWED = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
FILE_FORMATS = sorted(name for name, reader in READERS.items() if "path" in reader.config.model_fields)
HOSTILE = [
    "", ".", "..", "../x", "../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "a\0b", "cora\n", "\ncora",
    "CON", "nul.txt", "a.b", "-rf", "_x", "~root", "$HOME", "%2e%2e", "a b", "\u202earoc", "\u0441ora",
    "a" * 65, "a" * 5000, "*", "c:", "cora;ls", "{{7*7}}", "\ufeffcora", "\u2215etc",
]  # fmt: skip


def accepted(format_name: str, name: str) -> bool:
    """Whether a pipeline takes the name; refused, the message must say which field it was."""
    try:
        config = validate_config({"dataset": {"format": format_name, "path": "somewhere", "name": name}})
    except ConfigurationError as error:
        assert "dataset.name: " in str(error)
        return False
    assert config.dataset.name == name
    return True


@pytest.mark.parametrize("format_name", FILE_FORMATS)
@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:30])
def test_hostile_name_is_refused(name: str, format_name: str) -> None:
    assert not accepted(format_name, name)


@settings(max_examples=200, deadline=None)
@given(name=st.text(max_size=70) | st.from_regex(ALLOWED) | st.from_regex(r"\A[a-z0-9./\\_-]{1,70}\Z"))
@example(name="cora\n")
@example(name="a" * 64)
def test_names_are_those_of_the_pattern_and_no_others(name: str) -> None:
    assert accepted("planetoid", name) == bool(ALLOWED.fullmatch(name))


@settings(max_examples=60, deadline=None)
@given(name=st.from_regex(ALLOWED, fullmatch=True))
def test_files_of_an_accepted_name_lie_in_the_folder(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "s07"
    config = validate_config({"dataset": {"format": "musae", "path": str(folder), "name": name}}).dataset
    with pytest.raises(SourceUnreadable) as caught:
        source_files(config)
    missing = Path(str(caught.value).rpartition("there is no file ")[2])
    assert missing.resolve().is_relative_to(folder.resolve())
