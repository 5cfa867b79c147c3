"""Every column of every table, once: name, type, nullability, unit and meaning.

Shape legend: N nodes, F features, D embedding, K clusters or classes.
"""

from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

from data_contracts.arrow import Field


class Family(Enum):
    """Column types that are settled file by file."""

    VECTOR = "fixed_size_list<float32>[width]"
    NODE_ID = "int64 or string"


@dataclass(frozen=True)
class Column:
    """One column of the house.

    Attributes:
        name: singular snake case.
        type: an Arrow type, or the family it belongs to.
        nullable: whether a row may have no value here.
        unit: unit or range, for readers.
        meaning: what a value says.
        is_leading: whether the column, where present, comes before all others.
    """

    name: str
    type: pa.DataType | Family
    nullable: bool
    unit: str
    meaning: str
    is_leading: bool = False

    def field(self, *, width: int | None, node_id_type: pa.DataType) -> Field:
        """The Arrow field, with the family settled.

        Args:
            width: length of a vector, at least 1; needed by vector columns only.
            node_id_type: int64 or string.
        """
        return pa.field(self.name, self._settled(width, node_id_type), nullable=self.nullable)

    def _settled(self, width: int | None, node_id_type: pa.DataType) -> pa.DataType:
        if isinstance(self.type, pa.DataType):
            return self.type
        if self.type is Family.NODE_ID:
            if not self.accepts(node_id_type):
                raise ValueError(f"node_id_type must be int64 or string, not {node_id_type}")
            return node_id_type
        if width is None or width < 1:
            raise ValueError(f"column {self.name!r} needs a width of at least 1, not {width}")
        return pa.list_(pa.float32(), width)

    def accepts(self, found: pa.DataType) -> bool:
        """Whether a file may hold this column as `found`; names of list items do not matter."""
        if self.type is Family.NODE_ID:
            return bool(found == pa.int64() or found == pa.string())
        if self.type is Family.VECTOR:
            is_vector = pa.types.is_fixed_size_list(found) and found.value_type == pa.float32()
            return bool(is_vector and found.list_size > 0)
        if pa.types.is_list(self.type):
            return bool(pa.types.is_list(found) and found.value_type == self.type.value_type)
        return bool(found == self.type)

    @property
    def type_name(self) -> str:
        """The type as text."""
        return self.type.value if isinstance(self.type, Family) else str(self.type)


def _required(name: str, type_: pa.DataType | Family, unit: str, meaning: str) -> Column:
    return Column(name, type_, nullable=False, unit=unit, meaning=meaning)


def _nullable(name: str, type_: pa.DataType | Family, unit: str, meaning: str) -> Column:
    return Column(name, type_, nullable=True, unit=unit, meaning=meaning)


GRAPH = Column(
    "graph", pa.int64(), nullable=False, unit="0..G-1", meaning="graph of a collection", is_leading=True
)

NODE_TYPE = _required("node_type", pa.int32(), "0..T-1", "type of the node: `node_types` in the metadata")
TYPE_NODE = _required("node", pa.int64(), "0..N_t-1", "position of the node within its type")
RELATION = _required("relation", pa.int32(), "0..R-1", "of the edge: `relations` in the metadata")
METAPATH = _required("metapath", pa.int32(), "0..M-1", "that joins the two: `metapaths` in the metadata")

NODE = _required("node", pa.int64(), "0..N-1", "position of the node; rows in its order")
MEMBER = _required("node", pa.int64(), "0..N-1", "a node the row speaks of")
NODE_ID = _required("node_id", Family.NODE_ID, "none", "the source's own identifier")
SRC = _required("src", pa.int64(), "0..N-1", "node the edge leaves")
DST = _required("dst", pa.int64(), "0..N-1", "node the edge enters")
WEIGHT = _required("weight", pa.float32(), "none", "edge weight, finite")

X = _required("x", Family.VECTOR, "none", "feature vector, F values")
Z = _required("z", Family.VECTOR, "none", "embedding, D values")
INDICES = _required("indices", pa.list_(pa.int32()), "0..F-1", "features that are not zero, increasing")
VALUES = _required("values", pa.list_(pa.float32()), "none", "the values at `indices`")

LABEL = _nullable("label", pa.int32(), "0..K-1", "class of the node; null where it has none")
SPLIT_NAME = _required("split", pa.string(), "none", "name of the split")
ROLE = _required("role", pa.string(), "train, validation or test", "what the row is used for")
IS_EDGE = _required(
    "is_edge", pa.bool_(), "none", "true for an edge taken out, false for a pair that is none"
)

EPOCH = _required("epoch", pa.int32(), "count", "training epoch, increasing")
CHECK_EPOCH = _required("epoch", pa.int32(), "count >= 1", "epochs finished when the snapshot was taken")
CHECK_Z = _required("z", Family.VECTOR, "none", "embedding at that epoch, its leading components")

ANCHOR = _required("anchor", pa.int64(), "0..N-1", "node whose loss term the pair is in")
CANDIDATE = _required("candidate", pa.int64(), "0..N-1", "node that serves as its negative")
SIMILARITY = _required("similarity", pa.float32(), "[-1, 1]", "cosine of the two, as the loss sees them")
PAIR_WEIGHT = _required("weight", pa.float32(), ">= 0", "weight of the pair, 1 where all weigh the same")

ATTACK = _required("attack", pa.string(), "none", "which attack chose the edge")
TRUE_CLASS = _required("label", pa.int32(), "0..K-1", "class of the graph")
CLEAN_CLASS = _required("clean", pa.int32(), "0..K-1", "class the victim gives the graph as it is")
ATTACKED_CLASS = _required("attacked", pa.int32(), "0..K-1", "class the victim gives it with the edge")
ADDED_SRC = _nullable("src", pa.int64(), "place in the graph", "one end of the added edge; null for no edge")
ADDED_DST = _nullable("dst", pa.int64(), "place in the graph", "the other end; null for no edge")

UNCERTAINTY = _nullable("uncertainty", pa.float32(), ">= 0", "larger is less certain; null where not scored")
METHOD = _required("method", pa.string(), "none", "how the uncertainty was obtained")

CLUSTER = _required("cluster", pa.int32(), "0..K-1", "cluster the row belongs to")
CLUSTER_CONFIDENCE = _nullable("confidence", pa.float32(), "[0, 1]", "how sure the assignment is")
MEMBERSHIP = _nullable(
    "membership", pa.list_(pa.float32()), "[0, 1], sum 1", "share of each of the K clusters"
)
CENTROID = _required("z", Family.VECTOR, "none", "centre of the cluster in embedding space, D values")
NUM_CLUSTERS = _required("num_clusters", pa.int32(), "count >= 1", "number of clusters tried")
MEASURE = _required("measure", pa.string(), "none", "what was measured at that number of clusters")
EVIDENCE_VALUE = _required("value", pa.float64(), "the measure's own", "the measured value")

NEAREST_CLUSTER = _required("cluster", pa.int32(), "0..K-1", "cluster whose centroid is the nearest")
DISTANCE = _required("distance", pa.float32(), ">= 0", "Euclidean distance to that centroid")
IS_OUTLIER = _required("is_outlier", pa.bool_(), "none", "farther out than 99 % of the training nodes")
SHIFT_MEASURE = _required("measure", pa.string(), "none", "what was measured of the model on the new data")
SHIFT_VALUE = _nullable("value", pa.float64(), "the measure's own", "its value; null where not judged")
SHIFT_BOUND = _nullable("bound", pa.float64(), "the measure's own", "largest value allowed; null for any")

TASK = _required("task", pa.string(), "none", "what was evaluated: classification, clustering, ...")
PROTOCOL = _required("protocol", pa.string(), "none", "rule of evaluation, by its name")
METRIC_SPLIT = _nullable("split", pa.string(), "none", "name of the split; null where the protocol has none")
SEED = _nullable("seed", pa.int64(), "none", "seed of the probe or encoder; null for a summary over seeds")
EMBEDDING = _required("embedding", pa.string(), "method, smoothed or random_init", "what was evaluated on")
METRIC = _required("metric", pa.string(), "none", "name of the metric")
METRIC_VALUE = _nullable("value", pa.float64(), "fraction, not percent", "the metric; null where not defined")
STD = _nullable("std", pa.float64(), ">= 0", "sample standard deviation; null for a single value")
COUNT = _required("n", pa.int64(), "count", "how many nodes, edges or repetitions the value rests on")
OVER = _nullable("over", pa.string(), "none", "what std varies over: probe seeds, encoder seeds, splits")

PREDICTED = _nullable("predicted", pa.int32(), "0..K-1", "predicted class; null where not scored")
CONFIDENCE = _nullable("confidence", pa.float32(), "[0, 1]", "calibrated probability of `predicted`")
ENTROPY = _nullable("entropy", pa.float32(), "nats, 0..log K", "entropy of the predicted distribution")
ABSTAIN = _nullable("abstain", pa.bool_(), "none", "whether the prediction is withheld")
PREDICTION_SET = _nullable("prediction_set", pa.list_(pa.int32()), "0..K-1", "conformal set of classes")
CURVE = _required("curve", pa.string(), "none", "name of the curve: risk-coverage, ...")
CURVE_X = _required("x", pa.float64(), "the curve's own", "abscissa, not decreasing within a curve")
CURVE_Y = _required("y", pa.float64(), "the curve's own", "ordinate")


def loss_term(name: str) -> Column:
    """A column of the training history: one loss term an epoch, float64, finite."""
    return _required(name, pa.float64(), "the loss's own", "loss term of the epoch")
