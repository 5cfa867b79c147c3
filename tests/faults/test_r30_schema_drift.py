"""R30: a table of another contract version, or with other columns, is refused by the stage that opens it.

The artifacts are whole: their manifests fit their bytes. Only what the tables say has changed.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.errors import ContractIncompatible
from data_contracts.tables import CONTRACT_KEY, TABLES, VERSION_KEY
from flows.wiring import STAGES, PipelineState
from tasks.store import Store
from tests.tiny_runs import key_of, publish, run_direct, tiny

pytestmark = [pytest.mark.fault, pytest.mark.slow]


def noted(key: str, value: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.replace_schema_metadata(
        {**table.schema.metadata, key.encode(): value.encode()}
    )


def major(table: pa.Table) -> pa.Table:
    version = table.schema.metadata[VERSION_KEY.encode()].decode()
    return noted(VERSION_KEY, f"{int(version.split('.')[0]) + 1}.0")(table)


DRIFTS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "next major version": major,
    "version zero": noted(VERSION_KEY, "0.9"),
    "no version": noted(VERSION_KEY, ""),
    "another contract": noted(CONTRACT_KEY, "graph.nothing"),
    "no metadata": lambda table: table.replace_schema_metadata(None),
    "column dropped": lambda table: table.drop_columns([table.column_names[-1]]),
    "column added": lambda table: table.append_column("more", pa.array(range(len(table)))),
    "columns reordered": lambda table: table.select(table.column_names[::-1]),
    "column renamed": lambda table: table.rename_columns([*table.column_names[:-1], "other"]),
    "narrower type": lambda table: table.cast(
        pa.schema(
            [f.with_type(pa.int16()) if f.type == pa.int64() else f for f in table.schema],
            table.schema.metadata,
        )
    ),
}
TABLES_READ = [
    ("smooth", "graph", "edges"),
    ("smooth", "graph", "nodes"),
    ("train", "smoothed", "features"),
    ("cluster", "embeddings", "embeddings"),
    ("evaluate", "labels", "labels"),
]


@pytest.fixture(scope="module")
def base(finished_store: Path) -> PipelineState:
    return run_direct(tiny(), finished_store, until="evaluate").state


@pytest.mark.parametrize(("consumer", "kind", "name"), TABLES_READ)
@pytest.mark.parametrize("drift", DRIFTS)
def test_a_drifted_table_is_refused(
    consumer: str, kind: str, name: str, drift: str, base: PipelineState, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    state = PipelineState(base.config, store)
    for known, artifact in base.artifacts.items():
        folder = base.store.path(artifact)
        files = {f"{known}/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        if known == kind:
            table = pq.read_table(folder / f"{name}.parquet")
            pq.write_table(DRIFTS[drift](table), tmp_path / "drifted.parquet")
            files[f"{known}/{name}.parquet"] = (tmp_path / "drifted.parquet").read_bytes()
        made = publish(store, "ingest", key_of(known), files)
        state.artifacts[known] = made.artifacts[known]
    stage, make_request = STAGES[consumer]  # type: ignore[index]
    request = make_request(state)
    with pytest.raises(ContractIncompatible, match=rf"{kind}\.{name}"):
        stage.execute(request, store)
    assert store.find(consumer, request.key) is None


def test_every_table_names_its_contract_and_version() -> None:
    for name, table in TABLES.items():
        assert table.version.split(".")[0].isdecimal(), name
