"""graph.toml: what the columns of a graph of one's own mean. Nothing is guessed from names or values."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from gcl.config import Config
from gcl.errors import SourceUnreadable
from gcl.readers.printable import printable

MANIFEST = "graph.toml"
_MAX_BYTES = 1 << 20
# The parser takes time in the square of a dotted key's levels; no key of ours has more than two.
_MANY_LEVELS = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}"""
)
Column = Annotated[str, Field(min_length=1, max_length=200)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class NodeTable(Config):
    """The table of nodes: one row a node."""

    file: FileName = Field(description="file name in the folder of the manifest")
    id: Column = Field(description="column of node ids")
    id_type: Literal["int64", "string"] = Field(
        "string", description='type of ids; as strings "001" is not "1"'
    )
    label: Column | None = Field(None, description="column of class names; empty: node without label")
    split: Column | None = Field(None, description="column of train, validation, test or empty")
    features: tuple[Column, ...] | Column | None = Field(
        None,
        description="dense features: columns of numbers, PREFIX* for all columns that begin so, "
        "or in Parquet one column of lists of equal length",
    )
    sparse_features: Column | tuple[Column, Column] | None = Field(
        None,
        description='sparse features: in CSV a column of "index index:value", '
        "in Parquet two columns of lists, indices and values",
    )
    num_features: int | None = Field(None, ge=1, le=2**24, description="width F of sparse features, count")

    @model_validator(mode="after")
    def _one_kind_of_features(self) -> "NodeTable":
        if self.features is not None and self.sparse_features is not None:
            raise ValueError("give features or sparse_features, not both")
        if (self.sparse_features is None) != (self.num_features is None):
            raise ValueError("sparse_features and num_features belong together")
        return self


class EdgeTable(Config):
    """The table of edges: one row an edge."""

    file: FileName = Field(description="file name in the folder of the manifest")
    source: Column = Field("source", description="column of source node ids")
    target: Column = Field("target", description="column of target node ids")
    weight: Column | None = Field(None, description="column of weights, above zero")
    directed: bool = Field(False, description="whether (a, b) differs from (b, a)")


class GraphManifest(Config):
    """A graph in two tables."""

    nodes: NodeTable
    edges: EdgeTable


def read_manifest(folder: Path) -> GraphManifest:
    """The checked manifest of a folder.

    Raises:
        SourceUnreadable: there is none, or it is not one; the message names the field.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SourceUnreadable(f"{MANIFEST}: more than {_MAX_BYTES} bytes")
        text = path.read_bytes().decode("utf-8-sig")
        if _MANY_LEVELS.search(text):
            raise SourceUnreadable(f"{MANIFEST}: a key of more than 32 levels")
        return GraphManifest.model_validate(tomllib.loads(text))
    except OSError as error:
        raise SourceUnreadable(f"there is no readable manifest {path}: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{printable('.'.join(map(str, one['loc'])))}: {printable(one['msg'])}"
            for one in error.errors(include_url=False)[:5]
        )
        raise SourceUnreadable(f"{MANIFEST}: {problems}") from error
    except (ValueError, RecursionError) as error:
        raise SourceUnreadable(f"{MANIFEST}: not TOML: {printable(error)}") from error
