"""Evaluation of embeddings under named protocols; the only part of gcl that reads labels."""
