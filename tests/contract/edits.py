"""Ways to break a sound table."""

from collections.abc import Callable
from typing import Any


def put(column: str, row: int, value: Any) -> Callable[[Any], None]:
    """Replace one cell."""

    def edit(sample: Any) -> None:
        sample.data[column] = list(sample.data[column])
        sample.data[column][row] = value

    return edit


def know(**facts: Any) -> Callable[[Any], None]:
    """Change what the caller knows."""
    return lambda sample: sample.context.update(facts)


def drop_last_row(sample: Any) -> None:
    sample.data = {name: list(values)[:-1] for name, values in sample.data.items()}


def everything(column: str, value: Any) -> Callable[[Any], None]:
    return lambda sample: sample.data.update({column: [value] * len(sample.data[column])})
