"""What ``gclflow store`` prints: artifacts, lineage, runs, health."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from flows.show import console, new_table

if TYPE_CHECKING:
    from tasks.artifact import Artifact, Manifest
    from tasks.maintenance import Collected
    from tasks.runs import RunEntry
    from tasks.store import Store


def artifacts(store: "Store") -> None:
    """Every artifact of a store."""
    table = new_table(f"Store {store.address}", "stage", "artifact", "digest", "MB", "rows", "key")
    for manifest in store.manifests():
        for artifact in manifest.artifacts.values():
            table.add_row(
                manifest.stage,
                artifact.kind,
                artifact.digest[:12],
                f"{artifact.num_bytes / 2**20:.2f}",
                _rows(artifact),
                manifest.key[:12],
            )
    console().print(table)


def lineage(store: "Store", manifest: "Manifest", artifact: "Artifact") -> None:
    """One artifact, how it was made, and what it was made from, back to the source files."""
    screen = console()
    screen.print(f"[bold]{artifact.kind}[/] {artifact.digest}")
    screen.print(f"{store.path(artifact)}", markup=False, soft_wrap=True)
    screen.print(
        f"rows: {_rows(artifact)}; {artifact.num_bytes:,} bytes; {manifest.contracts.passed} contract checks"
    )
    screen.print_json(data={name: manifest.identity[name] for name in ("config", "facts", "libraries")})
    makers = {a.digest: (m, a) for m in store.manifests() for a in m.artifacts.values()}
    for line in _ancestors(manifest, makers, depth=0):
        screen.print(line, markup=False, soft_wrap=True)


def _ancestors(manifest: "Manifest", makers: dict[str, Any], *, depth: int) -> Iterable[str]:
    indent = "  " * depth
    yield f"{indent}{manifest.stage} {manifest.key[:12]}"
    for role, digest in manifest.identity["inputs"].items():
        yield f"{indent}  <- {role} {digest[:12]}" + (
            "" if digest in makers or ":" in role else " (not in the store)"
        )
        if digest in makers:
            yield from _ancestors(makers[digest][0], makers, depth=depth + 2)


def verified(damaged: Sequence[str]) -> None:
    """The outcome of a verification."""
    for line in damaged:
        console().print(f"damaged, now in the quarantine: {line}", markup=False, soft_wrap=True)
    console().print("every artifact is intact" if not damaged else f"{len(damaged)} damaged", markup=False)


def collected(found: "Collected", *, dry_run: bool) -> None:
    """What garbage collection removed: every path, and the sum of each kind."""
    for path in found.folders:
        console().print(path, markup=False, soft_wrap=True)
    for line in found.blocked:
        console().print(f"cannot be read, perhaps a pinned run: {line}", markup=False, soft_wrap=True)
    if found.blocked:
        console().print("so no stage folder goes; docs/store.md says what to do", markup=False)
    verb = "would remove" if dry_run else "removed"
    for kind in found.kinds:
        console().print(f"{verb} {kind.num_paths} {kind.kind}, {kind.num_bytes / 2**20:.1f} MB", markup=False)
    console().print(f"{verb} {len(found.folders)} in all, {found.num_bytes / 2**20:.1f} MB", markup=False)


def runs(entries: Sequence["RunEntry"], *, last_good: Mapping[str, str]) -> None:
    """The register of runs.

    Args:
        entries: oldest first.
        last_good: id of the last good run, by series.
    """
    if not entries:
        console().print("no runs are recorded in this store", markup=False)
        return
    table = new_table("Runs", "series", "run", "finished", "data set", "method", "seed", "outcome", "kept as")
    for entry in entries:
        kept = ["pinned"] * entry.pinned + ["last good"] * (last_good.get(entry.series) == entry.run)
        table.add_row(
            entry.series,
            entry.run,
            entry.finished[:16],
            _named(entry.config, "dataset"),
            _named(entry.config, "method"),
            str(entry.seed),
            "good" if entry.good else escape(entry.reason or "not good"),
            ", ".join(kept),
        )
    console().print(table)


def pinned(entry: "RunEntry") -> None:
    """Whether a run is kept now."""
    state = "pinned: it stays until it is unpinned" if entry.pinned else "not pinned"
    console().print(f"{entry.series} {entry.run} is {state}", markup=False, soft_wrap=True)


def accepted(entry: "RunEntry") -> None:
    """Which run the next ones of its series are compared with."""
    console().print(
        f"{entry.run} is the last good run of series {entry.series} now", markup=False, soft_wrap=True
    )


def _named(config: Mapping[str, Any], section: str) -> str:
    """The name a section of a configuration gives, for a column of a table."""
    found = config.get(section)
    return escape(str(found["name"])) if isinstance(found, dict) and "name" in found else "-"


def _rows(artifact: "Artifact") -> str:
    return ", ".join(f"{table} {rows:,}" for table, rows in artifact.num_rows.items()) or "-"
