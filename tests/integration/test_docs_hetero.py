"""The shop of docs/own-data.md, as written there: the files, and the command."""

import re
import shlex
from pathlib import Path

import pytest

from flows.config import load_config, stages_of
from tests.tiny_runs import TINY, run_direct

REPOSITORY = Path(__file__).resolve().parents[2]
SECTION = (REPOSITORY / "docs" / "own-data.md").read_text().partition("## Several node types\n")[2]
SECTION = SECTION.partition("\n## ")[0]
FILE = re.compile(r"`my-shop/([a-z.]+)`.*?\n\n```(?:csv|json)\n(.*?)```", re.DOTALL)


@pytest.mark.slow
def test_the_shop_of_the_page_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = dict(FILE.findall(SECTION))
    assert files.keys() == {"users.csv", "items.csv", "buys.csv", "graph.json"}
    assert 15 <= len(files["graph.json"].splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    Path("my-shop").mkdir()
    for name, content in files.items():
        Path("my-shop", name).write_text(content)
    (command,) = re.findall(r"```bash\n(gclflow run.*?)```", SECTION, re.DOTALL)
    overrides = shlex.split(command)[3::2]
    assert set(shlex.split(command)[2::2]) == {"--set"}
    config, _ = load_config(overrides=overrides)
    assert "metapaths" in stages_of(config)
    run = run_direct(config, tmp_path / "store", until="smooth")
    assert run.ran == ["ingest", "metapaths", "smooth"]
    quick = [item for item in TINY if item.startswith(("train.", "evaluate.", "cluster.num_restarts"))]
    config, _ = load_config(
        overrides=[*overrides, *quick, "cluster.num_clusters=2", "method.embedding_size=4"]
    )
    assert "embeddings" in run_direct(config, tmp_path / "store", until="cluster").state.artifacts
