"""Relations with a reverse name: read once, whichever table is there, and told where they disagree."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gcl.metapaths import build_metapaths
from tests.hetero_sources import write_manifest, write_shop
from tests.unit.gcl.test_hetero_checks import findings, opened


def test_a_reverse_relation_is_not_read_twice_and_must_agree(tmp_path: Path) -> None:
    manifest = write_shop(
        tmp_path, back=b"src_id,dst_id\npen,ann\ncup,ann\ncup,bob\npen,cyd\nbox,dee\nbox,bob\n"
    )
    back = {"relation": ["item", "rev_buys", "user"], "format": {"name": "csv"}, "files": "back.csv"}
    manifest["edges"].append(back)
    path = [["user", "buys", "item"], ["item", "rev_buys", "user"]]
    manifest["x_hetero"]["metapaths"] = [{"name": "UIU", "path": path}]
    write_manifest(tmp_path, manifest)
    source = opened(tmp_path)
    assert list(source.graph.edges) == [("user", "buys", "item")]
    assert source.metapaths[0].is_symmetric
    lines = b"src_id,dst_id\npen,ann\ncup,ann\ncup,bob\npen,bob\nbox,dee\nbox,bob\nbox,bob\n"
    (tmp_path / "back.csv").write_bytes(lines)
    found = findings(tmp_path)["H08"]
    assert (found.rule, found.num_rows) == ("reverse_relations_agree", 3)
    assert set(found.sample) == {
        "pen, bob: 1 time(s), turned round in user/buys/item 0",
        "box, bob: 2 time(s), turned round in user/buys/item 1",
        "pen, cyd: 0 time(s), turned round in user/buys/item 1",
    }


def with_bought_by(folder: Path, reverse_of: list[str], *, path: Any) -> None:
    """The shop with its one relation stored backward, under the name that a reverse is given."""
    manifest = write_shop(folder, buys=b"item,user\npen,ann\ncup,ann\ncup,bob\npen,cyd\nbox,dee\nbox,bob\n")
    edge = {"relation": ["item", "bought_by", "user"], "source_id_col": "item", "dest_id_col": "user"}
    manifest["edges"][0] |= edge
    manifest["x_hetero"] |= {
        "reverse": [{"of": reverse_of, "as": "bought_by"}],
        "metapaths": [{"name": "UIU", "path": path}],
    }
    write_manifest(folder, manifest)


@pytest.mark.parametrize(
    "path",
    [
        "user-item-user",
        [["user", "buys", "item"], ["item", "bought_by", "user"]],
        "user >buys> item >bought_by> user",
        "user <bought_by< item <buys< user",
    ],
)
def test_a_reverse_name_is_the_relation_itself_where_the_other_is_not_there(
    path: Any, tmp_path: Path
) -> None:
    with_bought_by(tmp_path, ["user", "buys", "item"], path=path)
    source = opened(tmp_path)
    assert list(source.graph.edges) == [("item", "bought_by", "user")]
    (metapath,) = build_metapaths(source.graph, source.metapaths, max_entries=100, seed=0)
    write_shop(tmp_path)
    (expected,) = build_metapaths(opened(tmp_path).graph, opened(tmp_path).metapaths, max_entries=100, seed=0)
    np.testing.assert_array_equal(metapath.adjacency_NN.toarray(), expected.adjacency_NN.toarray())


def test_a_reverse_of_no_relation_is_refused(tmp_path: Path) -> None:
    write_shop(tmp_path, more={"reverse": [{"of": ["user", "bays", "item"], "as": "bought_by"}]})
    found = findings(tmp_path)["H07"]
    assert (found.rule, found.sample) == ("reverses_of_relations", ("bought_by: of user/bays/item",))
