"""What ``gclflow up``, ``down`` and ``doctor`` print."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from flows.home import Home
from flows.show import console

if TYPE_CHECKING:
    from flows.doctor import Finding
    from flows.up import Standing

_MARKS = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner on a terminal, nothing elsewhere."""
    with Console(stderr=True).status(f"{what} ..."):
        yield


def standing(found: "Standing", *, home: Path) -> None:
    """Where the UI is, how to log in, and what to do next."""
    screen, said = console(), "" if home == Home().folder else f" --home {shlex.quote(str(home))}"
    began = " and ".join(found.started)
    screen.print(f"{began} started" if began else "everything was running already", highlight=False)
    screen.print(f"UI: [bold]{found.ui}[/]", highlight=False)
    if found.auth and screen.is_terminal:  # not into journals and mails
        screen.print(f"login: [bold]{escape(found.auth)}[/]", highlight=False, soft_wrap=True)
    elif found.auth:
        screen.print(f"login: in {home / 'auth.json'}", markup=False, highlight=False, soft_wrap=True)
    else:
        screen.print("no login is asked for: every user of this machine can start runs", highlight=False)
    screen.print(f"deployments: {found.deployed}", markup=False, highlight=False, soft_wrap=True)
    screen.print(
        f'Open Deployments, pipeline/nightly, and Run; or: eval "$(gclflow env{said})"; '
        "prefect deployment run pipeline/nightly",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    screen.print(
        f"logs: {home}; stop with: gclflow down{said}", markup=False, highlight=False, soft_wrap=True
    )


def stopped(names: Sequence[str]) -> None:
    """What was stopped."""
    console().print(
        f"{' and '.join(names)} stopped" if names else "nothing was running", markup=False, highlight=False
    )


def findings(found: Sequence["Finding"]) -> None:
    """A line a check, with what to do where it is not in order."""
    screen = console()
    for finding in found:
        line = f"{_MARKS[finding.state]} {escape(finding.name)}: {escape(finding.detail)}"
        screen.print(line, highlight=False, soft_wrap=True)
        if finding.advice:
            screen.print(f"       {escape(finding.advice)}", highlight=False, soft_wrap=True)
