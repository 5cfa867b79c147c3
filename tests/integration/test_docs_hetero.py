"""The shop of docs/own-data.md and the blocks of docs/heterogeneous.md, as written there."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from flows.config import PipelineConfig, load_config, stages_of
from gcl.hetero_graph import HeteroGraph
from gcl.interop_hetero import from_arrays, to_dgl
from gcl.readers import open_source
from gcl.readers.gconstruct import GconstructConfig
from gcl.readers.heco import HecoConfig
from tests.hetero_sources import heco_acm, write_shop
from tests.tiny_runs import TINY, run_direct

REPOSITORY = Path(__file__).resolve().parents[2]
SECTION = (REPOSITORY / "docs" / "own-data.md").read_text().partition("## Several node types\n")[2]
SECTION = SECTION.partition("\n## ")[0]
PAGE = (REPOSITORY / "docs" / "heterogeneous.md").read_text()
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


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == PAGE.count(f"```{language}")
    return found


def config_of(command: str) -> PipelineConfig:
    """The configuration that `gclflow run` would take."""
    words = shlex.split(command)
    assert words[:2] == ["gclflow", "run"]
    options = list(zip(words[2::2], words[3::2], strict=True))
    assert {name for name, _ in options} <= {"--preset", "--set"}
    preset = dict(options).get("--preset")
    return load_config(preset=preset, overrides=[value for name, value in options if name == "--set"])[0]


@pytest.mark.slow
def test_commands_of_the_page_find_their_data_and_walk_its_metapaths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my-shop").mkdir()
    Path("HeCo/data/acm").mkdir(parents=True)
    write_shop(Path("my-shop"))
    heco_acm(Path("HeCo/data/acm"))
    shop, acm = (config_of(line) for block in blocks("bash") for line in block.splitlines())
    assert (shop.dataset.format, acm.dataset.format, acm.dataset.name) == ("gconstruct", "heco", "acm")
    for config in (shop, acm):
        assert run_direct(config, tmp_path / "store", until="smooth").ran == ["ingest", "metapaths", "smooth"]


def test_tables_that_the_page_writes_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("HeCo/data/acm").mkdir(parents=True)
    heco_acm(Path("HeCo/data/acm"))
    exec(blocks("python")[0], {})  # noqa: S102  it is the page's
    first = open_source(HecoConfig(path=Path("HeCo/data/acm"), name="acm"))
    again = open_source(GconstructConfig(path=Path("acm-parquet")))
    assert again.graph.num_nodes == first.graph.num_nodes
    assert [plan.name for plan in again.metapaths] == ["PAP", "PSP"]
    assert {split.name for split in again.splits} == {"heco-20", "heco-40", "heco-60"}


def test_the_notebook_of_the_page_reads_graphs_of_both_libraries() -> None:
    pytest.importorskip("dgl")
    writes = ("author", "writes", "paper")
    expected = from_arrays({writes: ([0, 1], [0, 0])}, {"author": 2, "paper": 1}, target="author")

    class HeteroData(dict):  # type: ignore[type-arg]
        """What is used of PyG's, where it is not installed."""

        node_types, edge_types = ("author", "paper"), (writes,)

    data = HeteroData({"author": SimpleNamespace(num_nodes=2), "paper": SimpleNamespace(num_nodes=1)})
    data[writes] = SimpleNamespace(edge_index=torch.tensor([[0, 1], [0, 0]]))
    for line in ("from_pyg", "from_dgl"):
        names = {"data": data, "heterograph": to_dgl(expected)}
        code = [one for one in blocks("python")[1].splitlines() if line in one]
        assert len(code) == 2, "the import, and the call"
        exec("\n".join(code), names)  # noqa: S102  it is the page's
        found = names["graph"]
        assert isinstance(found, HeteroGraph)
        assert (found.target, list(found.edges), found.num_nodes) == ("author", [writes], expected.num_nodes)
