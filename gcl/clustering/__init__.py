"""Clusters of embeddings: fixed or searched number, soft membership, stability, ids that stay."""

from gcl.clustering.choice import Evidence
from gcl.clustering.config import ClusterConfig
from gcl.clustering.fit import Clustering, cluster_embeddings
from gcl.clustering.partition import align_labels

__all__ = ["ClusterConfig", "Clustering", "Evidence", "align_labels", "cluster_embeddings"]
