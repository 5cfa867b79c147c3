"""The folder in which ``gclflow up`` keeps what it has started: processes, ports, secret, logs, database."""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.config import ConfigurationError

DEFAULT_HOME = ".gclflow"
_USER = "gclflow"
_MAX_LOG_BYTES = 16 << 20


class Home:
    """The folder of one installation.

    It is readable by its owner alone, since it holds the server's secret and its database.

    Args:
        folder: where; nothing is made before `locked` is entered.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        chosen = folder if folder is not None else os.environ.get("GCLFLOW_HOME") or DEFAULT_HOME
        self.folder = Path(chosen).expanduser().resolve()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and let nobody else change what runs from it meanwhile.

        Raises:
            ConfigurationError: the folder cannot be made, or belongs to somebody else.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self.folder.stat().st_uid != os.geteuid():
                raise ConfigurationError(f"{self.folder} belongs to another user")
            self.folder.chmod(0o700)
            (self.folder / ".gitignore").write_text("*\n")
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{self.folder}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self, name: str) -> dict[str, Any]:
        """What was written under a name; empty where nothing readable is."""
        try:
            found = json.loads((self.folder / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Keep a small document; it appears whole or not at all, for its owner alone."""
        temporary = self.folder / f".{name}.{os.getpid()}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(content, indent=1) + "\n")
            temporary.replace(self.folder / f"{name}.json")
        finally:
            temporary.unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Remove a document."""
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        """The log file of a service."""
        return self.folder / f"{name}.log"

    def trim_logs(self, *, max_bytes: int = _MAX_LOG_BYTES) -> tuple[str, ...]:
        """Set aside what logs have grown beyond a size, as ``NAME.log.1``; what was there before goes.

        A service goes on writing where the log now begins again: it has opened it for appending. Lines
        written in the moment between are lost.

        Returns:
            Names of the logs that were set aside.
        """
        grown = [path for path in sorted(self.folder.glob("*.log")) if path.lstat().st_size > max_bytes]
        for path in grown:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            aside = os.open(f"{path}.1", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "r+b") as log, os.fdopen(aside, "wb") as kept:
                shutil.copyfileobj(log, kept)
                log.truncate(0)
        return tuple(path.name for path in grown)

    @property
    def auth(self) -> str | None:
        """The server's ``user:password``, or None where it was declined."""
        found = self.read("auth").get("auth")
        return found if isinstance(found, str) and found else None

    @property
    def asks_for_login(self) -> bool:
        """Whether clients must log in: as it was chosen last, and yes where nothing was."""
        return self.auth is not None or not self.read("auth")

    def choose_auth(self, *, wanted: bool, anew: bool = False) -> None:
        """Make a secret where one is wanted and there is none, or note that none is wanted.

        Args:
            wanted: whether clients must log in.
            anew: give up the secret there is.
        """
        if not wanted:
            self.write("auth", {"auth": ""})
        elif self.auth is None or anew:
            self.write("auth", {"auth": f"{_USER}:{secrets.token_urlsafe(18)}"})
