"""What `gcl` gives out by name; the module itself loads it on demand."""

from gcl.clustering.config import ClusterConfig as ClusterConfig
from gcl.clustering.fit import cluster_embeddings as cluster_embeddings
from gcl.dataset import read_dataset as read_dataset
from gcl.estimator import ContrastiveEmbedding as ContrastiveEmbedding
from gcl.graph import Graph as Graph
from gcl.graph import Labels as Labels
from gcl.methods import METHODS as METHODS
from gcl.smoothing import SmoothingConfig as SmoothingConfig
from gcl.smoothing import smooth_features as smooth_features
