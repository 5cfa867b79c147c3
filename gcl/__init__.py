"""Graph contrastive learning: readers, smoothing, methods, losses, clustering, uncertainty, evaluation."""
