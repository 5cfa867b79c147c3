"""Progress of long stages: one call from the work, any number of listeners (terminal, Prefect)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        stage: stage name.
        done: units finished.
        total: units in all.
        detail: what to show beside the bar: ``loss 3.21``.
    """

    stage: str
    done: int
    total: int
    detail: str = ""


Listener = Callable[[Progress], None]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("progress_listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every report made inside the body to `listener`."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def report(progress: Progress) -> None:
    """Tell all listeners."""
    for listener in _listeners.get():
        listener(progress)
