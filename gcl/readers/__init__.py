"""Readers: one public format a file, one line in the table below."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gcl.readers import (
    adgc_npy,
    csv_layout,
    dgl_csv,
    digits_knn,
    gconstruct,
    geom_gcn,
    gnn_benchmark_npz,
    heco,
    heterophilous_npz,
    musae,
    parquet_layout,
    planetoid,
    synthetic,
    tu_powerful_gnns,
    tu_text,
)
from gcl.readers.base import DatasetConfig, FileDatasetConfig, GraphSource, Reader, edge_policy

__all__ = [
    "READERS",
    "AnyDataset",
    "DatasetConfig",
    "FileDatasetConfig",
    "GraphSource",
    "Reader",
    "edge_policy",
    "open_source",
    "reader_of",
    "source_files",
]


def _table(readers: Iterable[Reader]) -> dict[str, Reader]:
    table: dict[str, Reader] = {}
    for reader in readers:
        if reader.format in table:
            raise ValueError(f"two readers for the format {reader.format!r}")
        table[reader.format] = reader
    return table


READERS = _table(
    [
        planetoid.READER,
        gnn_benchmark_npz.READER,
        adgc_npy.READER,
        geom_gcn.READER,
        heterophilous_npz.READER,
        musae.READER,
        csv_layout.READER,
        parquet_layout.READER,
        heco.READER,
        gconstruct.READER,
        dgl_csv.READER,
        tu_text.READER,
        tu_powerful_gnns.READER,
        digits_knn.READER,
        synthetic.READER,
    ]
)

AnyDataset = Annotated[
    planetoid.PlanetoidConfig
    | gnn_benchmark_npz.GnnBenchmarkNpzConfig
    | adgc_npy.AdgcNpyConfig
    | geom_gcn.GeomGcnConfig
    | heterophilous_npz.HeterophilousNpzConfig
    | musae.MusaeConfig
    | csv_layout.CsvConfig
    | parquet_layout.ParquetConfig
    | heco.HecoConfig
    | gconstruct.GconstructConfig
    | dgl_csv.DglCsvConfig
    | tu_text.TuTextConfig
    | tu_powerful_gnns.TuPowerfulGnnsConfig
    | digits_knn.DigitsKnnConfig
    | synthetic.SyntheticConfig,
    Field(discriminator="format"),
]


def reader_of(name: str) -> Reader:
    """The reader of a format; a ValueError lists the known ones."""
    if name not in READERS:
        raise ValueError(f"no reader for the format {name!r}; known: {', '.join(sorted(READERS))}")
    return READERS[name]


def source_files(config: DatasetConfig) -> dict[str, Path]:
    """The source's files by role, for the digest of its content; empty for generated graphs."""
    return reader_of(config.format).source_files(config)


def open_source(config: DatasetConfig) -> Any:
    """The data of a dataset configuration, ready to stream: a GraphSource, or what the format holds."""
    return reader_of(config.format).open(config)
