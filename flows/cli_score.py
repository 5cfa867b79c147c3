"""The command ``gclflow score``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli_store import STORE_OPTION
from flows.show import console

if TYPE_CHECKING:
    from flows.score import ScoreRecord

_BOUNDS = ("max_known_shift", "max_outlier_share", "max_shift")


def add_commands(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(no_args_is_help=True)(score)


def score(
    model: Annotated[
        str, typer.Option(help="A series (its last good run), or the start of a run's id or model's digest.")
    ],
    path: Annotated[
        Path | None,
        typer.Option(help="The source with the new nodes; the path of the model's run, if it has grown."),
    ] = None,
    nodes: Annotated[
        str, typer.Option(help="`new`, `all`, or a text file of ids, one a line.", metavar="WHICH")
    ] = "new",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help=f"A bound, or none: {', '.join(_BOUNDS)}; num_known."
        ),
    ] = None,
    store: Annotated[str, STORE_OPTION] = ".store",
    out: Annotated[Path, typer.Option(help="Directory for scores.parquet and score.json.")] = Path(
        "out/scores"
    ),
    refresh: Annotated[bool, typer.Option("--refresh", help="Compute the scores again.")] = False,
) -> None:
    """Embed nodes that came after training with the model of an earlier run; nothing is trained.

    The new source holds the old nodes and the new ones, in the format of the model's data set. The exit code
    is 3 where the model has drifted too far from what it scores (docs/scoring.md).

    **Examples**

    The nodes of today, by the model of the last good nightly run:

        gclflow score --model nightly --path my-graph-today

    Some nodes, whatever has drifted:

        gclflow score --model nightly --path my-graph-today --nodes ids.txt --set max_shift=none
    """
    from flows.score_running import run_score

    record = run_score(
        model=model, path=path, nodes=nodes, settings=set_ or (), store=store, out=out, refresh=refresh
    )
    _print(record, out=out)


def _print(record: "ScoreRecord", *, out: Path) -> None:
    screen = console()
    table = Table("measure", "value", "bound", "within")
    for row in record.shift:
        value, bound = (None if number is None else f"{number:.4f}" for number in (row.value, row.bound))
        table.add_row(row.measure, value, bound or "any", "yes" if value else "not judged")
    screen.print(table)
    for note in record.notes:
        screen.print(f"note: {note}", markup=False, soft_wrap=True)
    missing = f", {record.num_missing} of training are missing" if record.num_missing else ""
    state = record.stages[-1]["state"]
    screen.print(
        f"{record.num_scored} nodes scored ({state}), {record.num_outliers} of them outliers; the data have "
        f"{record.num_known} known and {record.num_new} new nodes{missing}",
        markup=False,
        soft_wrap=True,
    )
    screen.print(
        f"model {record.model_digest[:12]} of {record.run or record.model}; results in {out}",
        markup=False,
        soft_wrap=True,
    )
