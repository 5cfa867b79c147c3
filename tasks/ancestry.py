"""What an artifact was made from, by the digests of the manifests."""

from collections.abc import Iterable, Mapping

from tasks.artifact import Manifest

Address = tuple[str, str]
"""Stage and key of a stage folder."""


def with_ancestry(folders: Mapping[Address, Manifest], roots: Iterable[Address]) -> set[Address]:
    """Roots and all that they were made from, directly or not, of the folders there are."""
    makers = makers_of(folders)
    kept: set[Address] = set()
    pending = [address for address in roots if address in folders]
    while pending:
        address = pending.pop()
        if address in kept:
            continue
        kept.add(address)
        for digest in folders[address].identity["inputs"].values():
            pending.extend(makers.get(digest, ()))
    return kept


def makers_of(folders: Mapping[Address, Manifest]) -> dict[str, set[Address]]:
    """Which stage folders hold an artifact of a digest."""
    makers: dict[str, set[Address]] = {}
    for address, manifest in folders.items():
        for artifact in manifest.artifacts.values():
            makers.setdefault(artifact.digest, set()).add(address)
    return makers
