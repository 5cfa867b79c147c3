"""Commands for what stands between runs: ``gclflow up``, ``down``, ``env``, ``doctor``."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from flows import show_services

_HOME = typer.Option(
    "--home",
    help="Folder of the server's database, logs and secret.",
    envvar="GCLFLOW_HOME",
    show_default=True,
)


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(up)
    app.command()(down)
    app.command()(env)
    app.command()(doctor)


def up(
    home: Annotated[Path, _HOME] = Path(".gclflow"),
    port: Annotated[
        int | None, typer.Option(min=1024, max=65535, help="Port of the server; 4200, or a free one.")
    ] = None,
    auth: Annotated[
        bool | None, typer.Option("--auth/--no-auth", help="Ask for a login; kept as it was, at first yes.")
    ] = None,
    deployments: Annotated[
        Path | None, typer.Option(help="A prefect.yaml; the last one, or this folder's, or gclflow's.")
    ] = None,
    if_wanted: Annotated[
        bool, typer.Option("--if-wanted", help="Do nothing after gclflow down; for timers.")
    ] = False,
) -> None:
    """Start the Prefect server, its UI, the deployments and a worker, all on this machine alone.

    Again, it starts what has died and brings the deployments up to date; what you chose the last time, and
    schedules that you have switched on, stay. Runs of `gclflow run` from this folder then show in its UI.

    **Examples**

        gclflow up

    Start the nightly pipeline now, from the command line instead of the UI:

        eval "$(gclflow env)"; prefect deployment run pipeline/nightly
    """
    from flows.home import Home
    from flows.up import is_to_stay_down
    from flows.up import up as bring_up

    opened = Home(home)
    if if_wanted and is_to_stay_down(opened):
        return
    with show_services.waiting("starting"):
        standing = bring_up(opened, port=port, auth=auth, deployments=deployments)
    show_services.standing(standing, home=opened.folder)


def down(home: Annotated[Path, _HOME] = Path(".gclflow")) -> None:
    """Stop the worker, its runs, and the server. Results, history and settings stay.

    A run that is interrupted goes on from its last finished stage when it is started again.
    """
    from flows.home import Home
    from flows.up import down as bring_down

    with show_services.waiting("stopping"):
        stopped = bring_down(Home(home))
    show_services.stopped(stopped)


def env(home: Annotated[Path, _HOME] = Path(".gclflow")) -> None:
    """Print what to export so that `prefect` speaks with the server of `gclflow up`.

    **Example**

        eval "$(gclflow env)"
    """
    from flows.config import ConfigurationError
    from flows.home import Home
    from flows.server import client_environment

    settings = client_environment(Home(home))
    if not settings:
        raise ConfigurationError("no server runs here; start one with gclflow up")
    for name, value in settings.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def doctor(
    home: Annotated[Path, _HOME] = Path(".gclflow"),
    store: Annotated[
        str, typer.Option(help="Directory of the artifacts.", envvar="GCLFLOW_STORE")
    ] = ".store",
) -> None:
    """Check the installation: versions, store, disk, server, login, worker, deployments.

    The exit code is 1 where something is in the way of runs.
    """
    from flows.doctor import examine
    from flows.home import Home

    with show_services.waiting("looking"):
        findings = examine(Home(home), store)
    show_services.findings(findings)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)
