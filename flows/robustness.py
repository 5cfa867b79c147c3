"""The robustness study as a Prefect flow: victims x depths x seeds, each attacked; two cached stages a cell.

    python -m flows.robustness --seeds 0..2

A stop loses nothing but the cell it falls into: the same command finds the finished ones in the store.
"""

import json
import logging
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from flows import show
from flows.config import ConfigurationError, parse_value
from flows.exit_codes import Interrupted, describe, exit_code, write_failure
from flows.orphan import ends_with_worker
from flows.outputs import replace_file
from flows.record import machine, versions
from flows.robustness_table import robustness_markdown
from flows.running import check_writable, orchestrated, parse_seeds
from gcl.attacks.attack_config import AttackConfig
from gcl.attacks.victim_config import VictimConfig, VictimName
from gcl.config import Config
from tasks.progress import Progress, report
from tasks.robustness import ATTACK
from tasks.robustness_victim import VICTIM
from tasks.stage import StageReport
from tasks.store import Store
from tasks.work import read_metadata

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

logger = logging.getLogger(__name__)

SEEDS = "0..2"


class RobustnessConfig(Config):
    """Which cells the study has; each is a victim with its training and depth, and a seed."""

    num_rounds: tuple[Annotated[int, Field(ge=1, le=16)], ...] = Field(
        (2, 3, 4), min_length=1, description="K of the victims: counts >= 1"
    )
    trainings: tuple[VictimName, ...] = Field(
        ("scratch", "graphcl", "augcl"), min_length=1, description="how the victims are trained"
    )
    victim: VictimConfig = Field(VictimConfig(), description="the rest of every victim's settings")
    attack: AttackConfig = Field(AttackConfig(), description="the attacks")

    @field_validator("victim", mode="before")
    @classmethod
    def _cells_say_the_rest(cls, given: Any) -> Any:
        if isinstance(given, dict) and (taken := {"training", "num_rounds"} & given.keys()):
            raise ValueError(f"{min(taken)} is varied by the study: set num_rounds or trainings instead")
        return given

    @field_validator("num_rounds", "trainings")
    @classmethod
    def _without_repeats(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"{next(v for v in values if values.count(v) > 1)} is named twice")
        return values

    @model_validator(mode="after")
    def _every_victim_can_be_trained(self) -> Self:
        """Told before the first cell, and not hours later by the cell that fails."""
        for num_rounds, training in product(self.num_rounds, self.trainings):
            self.victim_of(num_rounds, training)
        return self

    def victim_of(self, num_rounds: int, training: VictimName) -> VictimConfig:
        """The settings of one victim.

        Args:
            num_rounds: K.
            training: how it is trained.

        Raises:
            ValueError: they do not fit each other.
        """
        cell = {"num_rounds": num_rounds, "training": training}
        try:
            return VictimConfig.model_validate({**dict(self.victim), **cell})
        except ValidationError as error:
            told = "; ".join(_told(item) for item in error.errors())
            raise ValueError(f"victim: {told}") from None


class RobustnessCell(BaseModel):
    """One victim and its attacks.

    Attributes:
        state: ``finished``, or ``failed`` with the reason.
        epoch: the one that was kept.
        num_right: test graphs that the victim classifies rightly as they are.
        attacks: by name: `accuracy` on all graphs, `success` on those that were right, `num_added` edges.
        seconds: by stage, of the run that computed it.
        num_cached: stages that were in the store already.
    """

    model_config = ConfigDict(frozen=True)

    num_rounds: int
    training: VictimName
    seed: int
    state: Literal["finished", "failed"]
    reason: str | None = None
    epoch: int | None = None
    num_graphs: int | None = None
    num_right: int | None = None
    clean_accuracy: float | None = None
    attacks: dict[str, dict[str, float | None]] = {}
    seconds: dict[str, float] = {}
    num_cached: int = 0
    notes: tuple[str, ...] = ()


class RobustnessRecord(BaseModel):
    """``robustness.json``: every cell, in the order they ran; the table is read off them."""

    model_config = ConfigDict(frozen=True)

    config: dict[str, Any]
    seeds: tuple[int, ...]
    num_planned: int
    versions: dict[str, str]
    machine: dict[str, Any]
    cells: tuple[RobustnessCell, ...] = ()

    @property
    def failed(self) -> tuple[RobustnessCell, ...]:
        """The cells that failed."""
        return tuple(cell for cell in self.cells if cell.state == "failed")


def robustness_config(settings: Sequence[str]) -> RobustnessConfig:
    """The configuration from KEY=VALUE texts, as ``victim.epochs=30``.

    Raises:
        ConfigurationError: a text that is none, an unknown key, or a value that does not fit.
    """
    values: dict[str, Any] = {}
    for text in settings:
        key, separator, raw = text.partition("=")
        if not separator:
            raise ConfigurationError(f"--set takes KEY=VALUE, as victim.epochs=30; got {text!r:.80}")
        *sections, name = key.strip().split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigurationError(f"--set {key.strip()}: {section} has a value already")
        inner[name] = parse_value(raw.strip())
    try:
        return RobustnessConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(f"--set {'; '.join(_told(item) for item in error.errors())}") from None


def _told(item: "ErrorDetails") -> str:
    """What is wrong with which setting, in the words of the command line."""
    key = ".".join(map(str, item["loc"]))
    told = item["msg"].removeprefix("Value error, ")
    if item["type"] == "tuple_type":
        told = f"takes a list, as --set '{key}={json.dumps([item['input']], default=str)}'"
    return f"{key}: {told}" if key else told


def robustness(config: RobustnessConfig, seeds: tuple[int, ...], store: str, out: str) -> RobustnessRecord:
    """Train and attack the victims, one after another; the record is written anew after each.

    Args:
        config: the cells.
        seeds: of the victims and attacks; the graphs have a seed of their own.
        store: directory of the artifacts; what it has is not computed again.
        out: directory for ``robustness.json`` and ``table.md``.
    """
    opened, folder = Store(store), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "failure.json").unlink(missing_ok=True)
    planned = [
        (num_rounds, training, seed)
        for num_rounds in config.num_rounds
        for training in config.trainings
        for seed in seeds
    ]
    record = RobustnessRecord(
        config=config.model_dump(mode="json"),
        seeds=seeds,
        num_planned=len(planned),
        versions=versions(),
        machine=machine(),
    )
    for number, (num_rounds, training, seed) in enumerate(planned):
        label = f"K={num_rounds}, {training}, seed {seed}"
        report(Progress("robustness", number, len(planned), label))
        cell = _run_cell(config, num_rounds, training, seed, opened)
        record = record.model_copy(update={"cells": (*record.cells, cell)})
        _write(record, folder)
    report(Progress("robustness", len(planned), len(planned)))
    _show(record)
    return record


def _run_cell(
    config: RobustnessConfig, num_rounds: int, training: VictimName, seed: int, store: Store
) -> RobustnessCell:
    """One victim; what goes wrong with it is its own matter."""
    cell = partial(RobustnessCell, num_rounds=num_rounds, training=training, seed=seed)
    settings = config.victim_of(num_rounds, training)
    facts = {"seed": seed}
    try:
        trained = VICTIM.run(VICTIM.request(settings, store=store, inputs={}, facts=facts), store)
        request = ATTACK.request(config.attack, store=store, inputs=trained.artifacts, facts=facts)
        attacked = ATTACK.run(request, store)
        found = read_metadata(store.open(attacked.artifacts["attacks"]))
        return cell(
            state="finished",
            epoch=read_metadata(store.open(trained.artifacts["victim"]))["epoch"],
            seconds={stage.stage: _seconds(stage, store) for stage in (trained, attacked)},
            num_cached=sum(stage.state == "cached" for stage in (trained, attacked)),
            **found,
        )
    except Exception as error:
        logger.exception("cell K=%d, %s, seed %d failed", num_rounds, training, seed)
        return cell(state="failed", reason=describe(error))


def _seconds(stage: StageReport, store: Store) -> float:
    """Of the run that computed it; of this one where nobody vouches for those any more."""
    try:
        path = store.stage_folder(stage.stage, stage.key) / "volatile" / "timing.json"
        return round(float(json.loads(path.read_bytes())["seconds"]), 3)
    except (OSError, ValueError, KeyError):
        return stage.seconds


def _write(record: RobustnessRecord, out: Path) -> None:
    replace_file(out / "robustness.json", (record.model_dump_json(indent=1) + "\n").encode())
    replace_file(out / "table.md", robustness_markdown(record).encode())


def _show(record: RobustnessRecord) -> None:
    """The table in the UI; a server that does not take it must not fail a study whose results are safe."""
    from prefect.artifacts import create_markdown_artifact

    try:
        create_markdown_artifact(
            key="study-robustness", markdown=robustness_markdown(record), description="Robustness"
        )
    except Exception:
        logger.exception("the study's Prefect artifact could not be written")


def run_robustness(
    *, store: str, out: Path, seeds: str | None = None, settings: Sequence[str] = ()
) -> RobustnessRecord:
    """Run the study from the command line: server, progress bars, what is left behind when it fails.

    Args:
        store: directory of the artifacts.
        out: directory of the results.
        seeds: ``0..4`` or ``0,3,7``; None for three.
        settings: KEY=VALUE of `RobustnessConfig`.

    Returns:
        The record; cells that failed are in it.

    Raises:
        ConfigurationError: before anything is started.
        Interrupted: stopped by a signal; the same command goes on.
    """
    config, numbers = robustness_config(settings), parse_seeds(seeds or SEEDS, default=0)
    root = Store(store).root  # refuses an unusable store before anything is started
    check_writable(out)
    try:
        with orchestrated(root):
            from prefect import flow

            run = flow(name="robustness", flow_run_name="study-robustness", persist_result=False)(
                ends_with_worker()(robustness)
            )
            return run(config, numbers, store, str(out))
    except BaseException as error:
        write_failure(error, out)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(str(error)) from None
        raise


def run_and_show(
    *,
    seeds: str | None,
    settings: Sequence[str],
    store: str,
    out: Path,
    only: Sequence[str] = (),
    large: bool = False,
) -> None:
    """Run the study and print its table; what `gclflow study` knows of other studies' cells does not fit.

    Args:
        seeds: as of `run_robustness`.
        settings: KEY=VALUE of `RobustnessConfig`.
        store: directory of the artifacts.
        out: directory of the results.
        only: none but an empty one fits.
        large: True does not fit.

    Raises:
        ConfigurationError: `only` or `large` was given.
        typer.Exit: with 5, where a cell failed.
    """
    from rich.markdown import Markdown

    if only or large:
        raise ConfigurationError(
            "robustness has no --only and no --large; choose cells with --set num_rounds=[3] and "
            "--set 'trainings=[\"augcl\"]'"
        )
    record = run_robustness(store=store, out=out, seeds=seeds, settings=settings)
    show.console().print(Markdown(robustness_markdown(record)))
    show.console().print(f"robustness.json and table.md in {out}", markup=False, soft_wrap=True)
    if record.failed:
        raise typer.Exit(5)


def command(
    seeds: Annotated[str, typer.Option(help="`0..4` or `0,3,7`: seeds of victims and attacks.")] = SEEDS,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key; repeatable.")
    ] = None,
    store: Annotated[str, typer.Option(help="Directory of the artifacts.")] = ".store",
    out: Annotated[Path, typer.Option(help="Directory for robustness.json and table.md.")] = Path(
        "out/robustness"
    ),
) -> None:
    """Train victims, attack them, and print the table; docs/robustness.md."""
    run_and_show(seeds=seeds, settings=set_ or (), store=store, out=out)


def main() -> None:
    """Entry point: run the command and turn errors into exit codes."""
    try:
        typer.run(command)
    except (Exception, KeyboardInterrupt) as error:  # the one place where every error ends
        show.error(describe(error))
        sys.exit(exit_code(error))


if __name__ == "__main__":
    main()
