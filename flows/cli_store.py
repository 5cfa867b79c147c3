"""``gclflow store``: the artifacts of a store, its runs and its health, from the command line."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows import show_store

if TYPE_CHECKING:
    from tasks.store import Store

store_app = typer.Typer(
    no_args_is_help=True, help="The artifacts and the runs: what there is, where it came from, its health."
)

STORE_OPTION = typer.Option(
    "--store",
    metavar="DIR",
    help="Directory of the artifacts, or s3://BUCKET/PREFIX (docs/object-store.md).",
    envvar="GCLFLOW_STORE",
)
_RUN = typer.Argument(
    metavar="RUN", help="Start of a run's id (`gclflow store runs`), or a series: its last good run."
)


@store_app.command("ls")
def store_ls(store: Annotated[str, STORE_OPTION] = ".store") -> None:
    """List the artifacts by stage, with digest, size and rows."""
    show_store.artifacts(_open(store))


@store_app.command("show")
def store_show(
    digest: Annotated[str, typer.Argument(help="Start of an artifact's digest, or of a stage key.")],
    store: Annotated[str, STORE_OPTION] = ".store",
) -> None:
    """Show one artifact: tables, contracts, configuration, and the artifacts it was made from."""
    opened = _open(store)
    show_store.lineage(opened, *opened.locate(digest))


@store_app.command("runs")
def store_runs(
    series: Annotated[str | None, typer.Option(help="Only this series, for example `nightly`.")] = None,
    store: Annotated[str, STORE_OPTION] = ".store",
) -> None:
    """List the runs that schedules have made, oldest first: which were good, which are kept.

    **Example**

        gclflow store runs --series nightly
    """
    from flows.config import ConfigurationError
    from tasks.runs import Runs

    runs = Runs(_open(store))
    try:
        entries = runs.entries(series)
    except ValueError as error:
        raise ConfigurationError(f"--series: {error}") from None
    good = {name: found.run for name in runs.series() if (found := runs.last_good(name)) is not None}
    show_store.runs(entries, last_good=good)


@store_app.command("accept")
def store_accept(run: Annotated[str, _RUN], store: Annotated[str, STORE_OPTION] = ".store") -> None:
    """Make a run the last good one of its series, although it regressed: what comes next is compared with it.

    **Example**

        gclflow store accept 20260131T020000123Z-4f1d2c
    """
    from tasks.runs import Runs

    show_store.accepted(Runs(_open(store)).accept(run))


@store_app.command("pin")
def store_pin(run: Annotated[str, _RUN], store: Annotated[str, STORE_OPTION] = ".store") -> None:
    """Keep a run, its artifacts and all that they were made from, whatever their age."""
    from tasks.runs import Runs

    show_store.pinned(Runs(_open(store)).pin(run))


@store_app.command("unpin")
def store_unpin(run: Annotated[str, _RUN], store: Annotated[str, STORE_OPTION] = ".store") -> None:
    """Let a pinned run go the way of the others."""
    from tasks.runs import Runs

    show_store.pinned(Runs(_open(store)).unpin(run))


@store_app.command("verify")
def store_verify(store: Annotated[str, STORE_OPTION] = ".store") -> None:
    """Hash every file of every artifact; damaged ones go to the quarantine. Exit 5 if there was any."""
    from tasks.maintenance import verify_store

    damaged = verify_store(_open(store))
    show_store.verified(damaged)
    if damaged:
        raise typer.Exit(5)


@store_app.command("gc")
def store_gc(
    store: Annotated[str, STORE_OPTION] = ".store",
    keep_days: Annotated[float, typer.Option(help="Keep what was published in the last so many days.")] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove what no recent result was made from, the quarantine, and unfinished work older than that.

    Always kept, with everything they were made from: the newest result of each stage, pinned runs, the last
    good run of each series. What a stage is working on now is left alone. While an entry of the register of
    runs cannot be read, no artifact is removed, since that run may be pinned: exit 5.
    """
    from flows.config import ConfigurationError
    from tasks.maintenance import collect_garbage

    if not keep_days >= 0:  # nor nan, which is older than nothing
        raise ConfigurationError(f"--keep-days takes a number of days, 0 or more; got {keep_days}")
    found = collect_garbage(_open(store), keep_days=keep_days, dry_run=dry_run)
    show_store.collected(found, dry_run=dry_run)
    if found.blocked:
        raise typer.Exit(5)


def _open(store: str) -> "Store":
    from tasks.maintenance import open_store

    return open_store(store)
