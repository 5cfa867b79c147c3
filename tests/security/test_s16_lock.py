"""S16: every dependency is locked to one version, and the audit of the lock never stops or hangs a build."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
LINES = [
    line
    for line in (REPOSITORY / "requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]]


def locked() -> dict[str, str]:
    versions: dict[str, str] = {}
    for line in LINES:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)(?: ;.*)?", line)
        assert match, f"not an exact version: {line}"
        name = canonicalize_name(match[1])
        assert name not in versions, f"locked twice: {name}"
        versions[name] = match[2]
    return versions


def test_every_line_is_one_exact_version() -> None:
    assert len(locked()) > 50


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_dependency_is_locked_to_a_version_it_allows(requirement: Requirement) -> None:
    version = locked().get(canonicalize_name(requirement.name))
    assert version is not None, "not in requirements.lock"
    assert requirement.specifier.contains(version, prereleases=True)


def test_nothing_is_locked_by_address() -> None:
    """A name and a version: no URL, no editable folder, no other index, nothing that pip would run."""
    assert not [line for line in LINES if re.search(r"://|^-|@|\bfile:", line)]


def audit(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The audit with the modules of a folder in reach."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / ".ci" / "audit"), *options],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
    )


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ("import time; time.sleep(600)", "took more than 1 s"),
        ("import sys; sys.exit('no route to host')", "no route to host"),
        ("print('not JSON')", "could not"),
    ],
)
def test_audit_that_cannot_be_done_says_so_and_ends_well(tool: str, told: str, tmp_path: Path) -> None:
    """A build must neither hang nor fail for want of a database."""
    (tmp_path / "pip_audit.py").write_text(tool)
    done = audit(tmp_path, "--timeout", "1")
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    assert "not audited" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("pip_audit") is not None, reason="pip-audit is installed")
def test_audit_without_its_tool_says_so_and_ends_well(tmp_path: Path) -> None:
    done = audit(tmp_path)
    assert done.returncode == 0
    assert "pip-audit is not installed" in done.stdout


@pytest.mark.parametrize("is_vulnerable", [False, True])
def test_audit_fails_for_a_known_vulnerability_only(is_vulnerable: bool, tmp_path: Path) -> None:
    found = [{"id": "PYSEC-0", "fix_versions": ["2"]}] if is_vulnerable else []
    report = json.dumps({"dependencies": [{"name": "x", "version": "1", "vulns": found}]})
    (tmp_path / "pip_audit.py").write_text(f"print({report!r})\nraise SystemExit({int(is_vulnerable)})\n")
    done = audit(tmp_path)
    assert done.returncode == is_vulnerable, done.stdout
    assert ("x 1: PYSEC-0" in done.stdout) == is_vulnerable
