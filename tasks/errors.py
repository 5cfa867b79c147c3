"""Errors of the orchestration layer; each names the promise that was broken."""


class ArtifactCorrupted(Exception):
    """A committed artifact is missing a file, or holds other bytes than its manifest says."""

    def __init__(self, uri: str, reason: str) -> None:
        self.uri, self.reason = uri, reason
        super().__init__(uri, reason)

    def __str__(self) -> str:
        """Which artifact, and what is wrong with it."""
        return f"artifact {self.uri}: {self.reason}"


class StoreFull(Exception):
    """The store's disk, quota or file size limit is exhausted; nothing was published."""

    def __init__(self, store: str, needed_bytes: int, free_bytes: int) -> None:
        self.store, self.needed_bytes, self.free_bytes = store, needed_bytes, free_bytes
        super().__init__(store, needed_bytes, free_bytes)

    def __str__(self) -> str:
        """How much is missing, and what to do."""
        return (
            f"store {self.store} is full: at least {self.needed_bytes:,} bytes were being written, "
            f"{self.free_bytes:,} are free; free some space (gclflow store gc) and run again"
        )


class StoreUnusable(Exception):
    """The store's folder cannot be used: not a directory, not ours, not writable, another format."""


class NewerFormat(StoreUnusable):
    """A newer gclflow has written this; it is not damaged, and is left as it is."""


class UnknownArtifact(LookupError):
    """No artifact in the store has this digest or key."""
