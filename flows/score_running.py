"""Scoring from the command line: bounds, the Prefect server, failures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from flows.config import ConfigurationError, parse_value
from flows.exit_codes import Interrupted, leave_failure
from flows.running import check_writable, orchestrated
from gcl.evaluation.embedding_shift import ShiftConfig
from tasks.maintenance import open_store

if TYPE_CHECKING:
    from flows.score import ScoreRecord

RESULT_FILES = ("score.json", "scores.parquet")
"""What a run leaves in its folder; ``score.json`` is written last, and goes first."""


def parse_bounds(settings: Sequence[str]) -> ShiftConfig:
    """Bounds from KEY=VALUE texts.

    Raises:
        ConfigurationError: a text that is none, an unknown key, or a value out of its range.
    """
    given = {}
    for text in settings:
        key, separator, raw = text.partition("=")
        if not separator:
            raise ConfigurationError(f"--set takes KEY=VALUE, for example max_shift=none; got {text!r:.80}")
        given[key.strip()] = parse_value(raw.strip())
    try:
        return ShiftConfig.model_validate(given)
    except ValidationError as error:
        known = ", ".join(ShiftConfig.model_fields)
        reasons = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"--set {'; '.join(reasons)} (there are: {known})") from None


def run_score(
    *,
    model: str,
    path: Path | None,
    nodes: str,
    settings: Sequence[str],
    store: str,
    out: Path,
    refresh: bool = False,
) -> "ScoreRecord":
    """Run the flow and write the results.

    Args:
        model: a series, or the beginning of a run's id or a model's digest.
        path: the new source; None: that of the model's run.
        nodes: ``new``, ``all``, or a file of ids.
        settings: bounds as KEY=VALUE.
        store: directory of the artifacts.
        out: directory of the results.
        refresh: compute the scores again.

    Raises:
        whatever the flow raises, after ``OUT/failure.json`` was written.
    """
    bounds = parse_bounds(settings)
    root = open_store(store).root
    check_writable(out)
    try:
        with orchestrated(root):
            from flows.score import score

            return score(
                model=model,
                path=None if path is None else str(path),
                nodes=nodes,
                store=store,
                out=str(out),
                bounds=bounds,
                refresh=refresh,
            )
    except BaseException as error:
        leave_failure(error, out, instead_of=RESULT_FILES)
        if isinstance(error, KeyboardInterrupt):  # which the command line's library would end without a word
            raise Interrupted(str(error)) from None
        raise
