"""Configuration models: what every one of them takes and refuses."""

from typing import Literal

import pytest
from pydantic import ValidationError

from gcl.config import Config


class Example(Config):
    """One field of each kind."""

    count: int | None = 3
    name: str | None = "x"
    norm: Literal["none", "l2"] = "l2"
    label: str = "y"


def test_none_is_nothing_where_a_field_may_be_nothing() -> None:
    found = Example.model_validate({"count": "none", "name": "none", "norm": "none", "label": "none"})
    assert (found.count, found.name, found.norm, found.label) == (None, None, "none", "none")


@pytest.mark.parametrize("wrong", [{"count": "None"}, {"unknown": 1}, {"label": None}, {"label": "\ud800"}])
def test_what_does_not_fit_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Example.model_validate(wrong)
