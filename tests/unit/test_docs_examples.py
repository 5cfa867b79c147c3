"""The examples in docs/notebooks.md run, and print what the page says they print."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "notebooks.md"
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
TOLERANCE = 0.04  # for figures with a point; processors round differently, and k-means may go another way


def same_text(printed: str, promised: str) -> bool:
    """Whether two texts agree, whole numbers exactly and others nearly."""
    if NUMBER.sub("#", printed.strip()) != NUMBER.sub("#", promised.strip()):
        return False
    numbers = zip(NUMBER.findall(printed), NUMBER.findall(promised), strict=True)
    return all(a == b if "." not in b else abs(float(a) - float(b)) <= TOLERANCE for a, b in numbers)


@pytest.mark.slow
def test_every_block_of_the_page_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) == PAGE.read_text().count("```python")
    namespace: dict[str, Any] = {}
    before = torch.get_rng_state()
    for source, promised in blocks:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), threadpool_limits(1):
            exec(compile(source, str(PAGE), "exec"), namespace)
        assert same_text(output.getvalue(), promised), f"{source}\nprinted:\n{output.getvalue()}"
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("printed", "promised", "agree"),
    [
        ("nmi 0.83", "nmi 0.80", True),
        ("nmi 0.85", "nmi 0.80", False),
        ("(10, 64)", "(10, 64)", True),
        ("(10, 64)", "(11, 64)", False),
        ("True", "False", False),
    ],
)
def test_comparison_of_outputs(printed: str, promised: str, agree: bool) -> None:
    assert same_text(printed, promised) is agree


def test_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (REPOSITORY / "README.md").read_text().partition("## In a notebook\n")[2].partition("\n## ")[0]
    source = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"adjacency": np.ones((40, 40)) - np.eye(40), "x": np.eye(40)}
    exec(compile(source, "README.md", "exec"), namespace)
    assert namespace["z"].shape[0] == len(namespace["doubt"]) == 40


def test_every_name_the_page_mentions_exists() -> None:
    import gcl

    for name in re.findall(r"`(?:gcl\.)?Graph\.(from_\w+)", PAGE.read_text()):
        assert hasattr(gcl.Graph, name)
    for name in re.findall(r"\bgcl\.([A-Za-z_]+)\(", PAGE.read_text()):
        assert hasattr(gcl, name)


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
