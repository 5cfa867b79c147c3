"""Clusters of embeddings: fixed or searched number, soft membership, stability, ids that stay."""
