"""docs/collections.md says what there is, and its example runs."""

from pathlib import Path
from typing import Any, get_args

import pytest

from flows.config import preset_names, read_preset
from gcl.collection_augment import POLICIES
from gcl.methods import METHODS, ON_COLLECTIONS, method_class
from gcl.readers import READERS
from gcl.readers.collection_base import CollectionConfig
from tests.collection_sources import TU_FILES, tu_text

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "collections.md").read_text()


def test_page_names_formats_features_methods_and_presets() -> None:
    on_collections = [name for name in METHODS if "collection" in method_class(name).inputs]
    assert set(ON_COLLECTIONS.values()) <= set(on_collections)
    presets = [
        name
        for name in preset_names()
        if READERS[read_preset(name)["config"]["dataset"]["format"]].holds == "collection"
    ]
    names = [
        *(name for name, reader in READERS.items() if reader.holds == "collection"),
        *get_args(CollectionConfig.model_fields["node_features"].annotation),
        *on_collections,
        *(name for name in POLICIES if name.startswith("random")),
        *presets,
    ]
    assert len(presets) == 8
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_example_gives_a_row_a_graph(tmp_path: Path) -> None:
    tu_text(tmp_path)
    source = "\n".join(line[4:] for line in PAGE.splitlines() if line.startswith("    "))
    source = source[source.index("from gcl.methods import") :]
    namespace: dict[str, Any] = {}
    exec(source.replace("data/MUTAG", str(tmp_path)).replace("epochs=40", "epochs=2"), namespace)
    assert namespace["embeddings"].shape == (3, 96)
    assert len(namespace["labels"].y_N) == 3
    assert namespace["own"].num_nodes_G.tolist() == list(range(5, 30))
    assert namespace["own_embeddings"].shape == (25, 96)


def test_refusal_on_the_page_is_the_readers(tmp_path: Path) -> None:
    from gcl.errors import SourceUnreadable
    from gcl.readers.tu_text import TuTextConfig, open_source

    lines = TU_FILES["A"].split("\n")
    tu_text(tmp_path, A="\n".join([*lines[:4], "3", *lines[5:]]))
    with pytest.raises(SourceUnreadable) as raised:
        open_source(TuTextConfig(path=tmp_path))
    assert str(raised.value).replace("TINY", "MUTAG") in PAGE
