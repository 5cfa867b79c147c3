"""The digits: neighbours against scikit-learn, the split, the seed."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from gcl.readers.digits_knn import DigitsKnnConfig, open_source


def test_neighbours_are_as_near_as_those_of_scikit_learn() -> None:
    pixels = load_digits().data
    (chunk,) = open_source(DigitsKnnConfig(k=5)).edge_chunks()
    distances, _ = NearestNeighbors(n_neighbors=6).fit(pixels).kneighbors(pixels)
    found = np.linalg.norm(pixels[chunk.src] - pixels[chunk.dst], axis=1).reshape(-1, 5)
    assert np.allclose(found, distances[:, 1:])
    assert (chunk.src != chunk.dst).all()


def test_split_has_twenty_a_class_and_covers_all_nodes() -> None:
    source = open_source(DigitsKnnConfig(k=1))
    (split,) = source.splits
    y_N = np.concatenate(list(source.label_chunks()))
    assert split.name == "digits-20"
    assert np.bincount(y_N[split.train]).tolist() == [20] * 10
    assert len(split.validation) == 300
    assert np.array_equal(
        np.sort(np.concatenate([split.train, split.validation, split.test])), np.arange(1797)
    )


def test_seed_moves_the_split_and_nothing_else() -> None:
    first, second = (open_source(DigitsKnnConfig(k=1, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(first.splits[0].train, second.splits[0].train)
    assert np.array_equal(next(first.edge_chunks()).dst, next(second.edge_chunks()).dst)


def test_features_are_between_zero_and_one() -> None:
    (block,) = open_source(DigitsKnnConfig(k=1)).feature_chunks()
    assert block.shape == (1797, 64)
    assert (block.min(), block.max()) == (0, 1)
