"""The command line: ``gclflow``. Parsing and printing only; heavy imports wait until they are needed."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows import cli_score, show
from flows.cli_services import add_commands
from flows.cli_store import STORE_OPTION, store_app
from flows.config import STAGE_NAMES, StageName, defaults_taken, load_config, method_switch
from gcl.methods.configs.unused import told_before

app = typer.Typer(
    name="gclflow",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Graph contrastive learning as cached, contracted stages: from an attributed graph to embeddings, "
    "clusters, uncertainties and a report.",
)
app.add_typer(store_app, name="store")
add_commands(app)
cli_score.add_commands(app)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and log everything.")] = False,
) -> None:
    """Options of every command."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("websockets").setLevel(logging.INFO)  # it logs what it sends: the server's login
    else:  # what matters is printed or raised; Prefect's server has the full log
        logging.getLogger().addHandler(logging.NullHandler())


@app.command(no_args_is_help=True)
def run(
    preset: Annotated[
        str | None, typer.Option(help="A preset (see `gclflow presets`); `none` for the method's defaults.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with the same keys as `--set`.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key; repeatable.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Several runs: `0..4` or `0,3,7`; metrics are averaged.")
    ] = None,
    store: Annotated[str, STORE_OPTION] = ".store",
    out: Annotated[Path, typer.Option(help="Directory for run.json, report.html and the tables.")] = Path(
        "out"
    ),
    refresh: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Compute this stage again; repeatable.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    series: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Compare with the last good run of this series, and record."),
    ] = None,
) -> None:
    """Run the pipeline: ingest, smooth, train, uncertainty, cluster, evaluate, report.

    A stage whose inputs, configuration and code have not changed is taken from the store. Without a preset or
    file, a run takes the preset of its data set and method or, if there is none, the method's defaults
    (`gclflow methods`).

    **Examples**

    The embedded data set, with its preset:

        gclflow run --preset digits

    Cora from the Planetoid files, five seeds:

        gclflow run --set dataset.format=planetoid --set dataset.path=DIR --set dataset.name=cora --seeds 0..4

    Your own graph (see docs/own-data.md), with longer training, and only up to the embeddings:

        gclflow run --set dataset.format=csv --set dataset.path=my_graph --set train.epochs=100 --until train

    Train again although nothing changed:

        gclflow run --preset digits --refresh train

    A run of a series: exit code 6 where it is worse than the last good one allows (`regression.*`)

        gclflow run --preset digits --series nightly
    """
    from flows.running import check_series, parse_seeds, run_pipeline

    settings, used = load_config(preset=preset, file=config, overrides=set_ or ())
    if switch := method_switch(preset=preset, file=config, overrides=set_ or ()):
        show.switched(switch, settings, origin=str(config or f"preset {used}"))
    for told in told_before(settings.method, settings.train.epochs, settings.smooth):
        show.warning(told)
    record = run_pipeline(
        settings,
        seeds=parse_seeds(seeds, default=settings.seed),
        store=store,
        out=out,
        refresh=tuple(_stage(name) for name in refresh or ()),
        until=None if until is None else _stage(until),
        preset=used,
        series=check_series(series),
    )
    rests_on_method = used is None and config is None
    show.run(record, out=out, defaults=defaults_taken(set_ or ()) if rests_on_method else {})


@app.command()
def datasets() -> None:
    """The data formats, what each needs, and the public data sets `gclflow fetch` knows."""
    show.datasets()


@app.command()
def methods() -> None:
    """The methods, what they read, and their settings; then the settings of the other stages."""
    show.methods()


@app.command()
def presets() -> None:
    """The presets, what they are for, and where their numbers come from."""
    show.presets()


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of a public data set (see `gclflow datasets`).")],
    to: Annotated[Path, typer.Option(help="Directory to download into.")] = Path("data"),
) -> None:
    """Download a public data set; every file is checked against a pinned sha256.

    **Example**

        gclflow fetch cora --to data
        gclflow run --set dataset.format=planetoid --set dataset.path=data/cora --set dataset.name=cora
    """
    from flows.fetch import fetch_dataset

    show.fetched(fetch_dataset(name, to))


@app.command()
def study(
    name: Annotated[
        str | None, typer.Argument(help="Name of a study, or a TOML file; none lists them.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder below which the public graphs lie.", envvar="GCLFLOW_DATA")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="`0..9` or `0,3,7` instead of the study's.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="VARIANT/DATASET", help="These cells only, with wildcards; repeatable."),
    ] = None,
    large: Annotated[bool, typer.Option("--large", help="With the cells that are marked large.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="For every cell; repeatable.")
    ] = None,
    store: Annotated[str, STORE_OPTION] = ".store",
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for study.json, table.md and the plots.", show_default="out/NAME"),
    ] = None,
) -> None:
    """Run an experiment: data sets x variants x seeds, each a cached run, compared seed by seed.

    A study that is stopped goes on with the same command. A cell that fails is listed with its reason and
    does not end the study; the exit code is then 5.

    **Examples**

    What there is:

        gclflow study

    How much smoothing helps, over homophily, on generated graphs, with three seeds:

        gclflow study dmat-smoothing --seeds 0..2

    Two data sets of public graphs:

        gclflow study hsan-ablation --data ../shared/data --only '*/bat' --only '*/cora'
    """
    if name is None:
        show.studies()
        return
    folder = out or Path("out") / Path(name).stem
    if name == "robustness":  # whose cells are no runs of the pipeline; docs/robustness.md
        from flows.robustness import run_and_show

        run_and_show(seeds=seeds, settings=set_ or (), store=store, out=folder, only=only or (), large=large)
        return
    from flows.study_running import run_study

    record = run_study(
        name,
        store=store,
        out=folder,
        data=data,
        seeds=seeds,
        only=only or (),
        large=large,
        settings=set_ or (),
    )
    show.study(record, out=folder)
    if record.failed:
        raise typer.Exit(5)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Output directories of runs.")],
) -> None:
    """Two or more runs side by side: the settings that differ, the metrics, the times.

    **Example**

        gclflow compare out/cora-alpha-005 out/cora-alpha-010
    """
    from flows.compare import compare_runs

    show.comparison(compare_runs(runs))


@app.command()
def notify(
    url: Annotated[
        str | None, typer.Argument(help="Address to post to; it is kept as a secret.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(help="Of the notice; another name adds another.")] = "gclflow-notices",
    remove: Annotated[bool, typer.Option("--remove", help="Remove it instead.")] = False,
    test: Annotated[bool, typer.Option("--test", help="Send a test notice afterwards.")] = False,
    overdue_after: Annotated[
        float | None,
        typer.Option(min=0.01, help="Hours. Post too when a series has had no good run for so long."),
    ] = None,
    series: Annotated[str, typer.Option(help="The series that --overdue-after watches.")] = "nightly",
) -> None:
    """Have the Prefect server post violated contracts, regressed, failed and crashed runs to a webhook.

    It needs a server that stays: that of `gclflow up`, or the one PREFECT_API_URL names. Again, with the same
    name, it changes the address (docs/notices.md).

    **Example**

        gclflow notify https://hooks.example.com/services/T0/B0/secret --test --overdue-after 26
    """
    from datetime import timedelta

    from flows.notices import Overdue
    from flows.notices import notify as set_notice
    from flows.running import check_series

    overdue = None
    if overdue_after is not None:
        overdue = Overdue(check_series(series) or series, timedelta(hours=overdue_after))
    show.notice(set_notice(url, name=name, remove=remove, test=test, overdue=overdue), name=name)


def main() -> None:
    """Entry point: run a command and turn errors into exit codes."""
    from flows.exit_codes import describe, exit_code

    is_debug = "--debug" in sys.argv  # accepted anywhere on the line
    arguments = ["--debug"] * is_debug + [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(args=arguments, standalone_mode=True)
    except (Exception, KeyboardInterrupt) as error:  # the one place where every error ends
        if is_debug:
            raise
        show.error(describe(error))
        sys.exit(exit_code(error))


def _stage(name: str) -> StageName:
    from flows.config import ConfigurationError

    if name not in STAGE_NAMES:
        raise ConfigurationError(f"there is no stage {name!r}; the stages are: {', '.join(STAGE_NAMES)}")
    return name
