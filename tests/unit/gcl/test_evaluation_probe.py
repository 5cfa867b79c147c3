import numpy as np
import pytest

from gcl.errors import NotDefined
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.probe import fit_probes
from gcl.graph import Split


def task(num_nodes=300, num_classes=3, width=10, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y_N = rng.integers(num_classes, size=num_nodes)
    z_ND = (np.eye(num_classes, width)[y_N] * 2 + noise * rng.normal(size=(num_nodes, width))).astype("f")
    order = rng.permutation(num_nodes)
    parts = np.split(order, [num_nodes // 5, 2 * num_nodes // 5])
    return z_ND, y_N, Split("s", *map(np.sort, parts))


@pytest.mark.parametrize("width", [10, 200], ids=["more nodes than columns", "more columns than nodes"])
def test_logistic_probe_is_the_regularised_optimum(width):
    """scikit-learn minimises the same objective; at one C the class probabilities agree."""
    from scipy.special import softmax
    from sklearn.linear_model import LogisticRegression

    z_ND, y_N, split = task(width=width)
    for c in (0.01, 1.0, 30.0):
        probe = fit_probes(z_ND, y_N, split, EvaluateConfig(probe_c=(c,)), num_classes=3, seed=0)[0]
        model = LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(
            z_ND[split.train].astype("d"), y_N[split.train]
        )
        expected = model.predict_proba(z_ND[split.test])
        np.testing.assert_allclose(softmax(probe.logits(z_ND[split.test]), 1), expected, atol=1e-3)


def test_penalty_is_chosen_on_validation_and_test_labels_are_not_read():
    z_ND, y_N, split = task(width=200)
    scores = []
    for c in EvaluateConfig().probe_c:
        probe = fit_probes(z_ND, y_N, split, EvaluateConfig(probe_c=(c,)), num_classes=3, seed=0)[0]
        scores.append((probe.predict(z_ND[split.validation]) == y_N[split.validation]).mean())
    chosen = fit_probes(z_ND, y_N, split, EvaluateConfig(), num_classes=3, seed=0)[0]
    assert (chosen.predict(z_ND[split.validation]) == y_N[split.validation]).mean() >= max(scores) - 0.02
    other_N = y_N.copy()
    other_N[split.test] = 0
    for config in (EvaluateConfig(), EvaluateConfig(probe="linear", probe_epochs=30)):
        a = fit_probes(z_ND, y_N, split, config, num_classes=3, seed=0)
        b = fit_probes(z_ND, other_N, split, config, num_classes=3, seed=0)
        assert [p.logits(z_ND).tobytes() for p in a] == [p.logits(z_ND).tobytes() for p in b]
        assert [p.chosen for p in a] == [p.chosen for p in b]


def test_linear_probe_equals_torch_adam_with_its_own_seed():
    torch = pytest.importorskip("torch")
    z_ND, y_N, split = task()
    split = Split("s", split.train, split.validation[:0], split.test)  # no choice: the last epoch
    config = EvaluateConfig(probe="linear", probe_epochs=40, num_probe_seeds=3)
    probes = fit_probes(z_ND, y_N, split, config, num_classes=3, seed=0)
    from gcl.random import numpy_generator

    start = numpy_generator(0, "linear_probe", 1).uniform(-1 / np.sqrt(10), 1 / np.sqrt(10), (11, 3))
    theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([theta], lr=config.probe_learning_rate)
    z_TD, y_T = torch.tensor(z_ND[split.train], dtype=torch.float64), torch.tensor(y_N[split.train])
    for _ in range(40):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(z_TD @ theta[:-1] + theta[-1], y_T).backward()
        adam.step()
    found = theta.detach().numpy()
    np.testing.assert_allclose(probes[1].logits(z_ND), z_ND @ found[:-1] + found[-1], atol=1e-4)
    assert probes[1].chosen == 40
    assert not np.allclose(probes[0].logits(z_ND), probes[1].logits(z_ND))


def test_classes_without_training_nodes_are_never_predicted():
    z_ND, y_N, split = task()
    train = split.train[y_N[split.train] != 1]
    for config in (EvaluateConfig(), EvaluateConfig(probe="linear", probe_epochs=20)):
        probe = fit_probes(
            z_ND, y_N, Split("s", train, split.validation, split.test), config, num_classes=3, seed=0
        )[0]
        assert not (probe.predict(z_ND) == 1).any()
        assert np.isneginf(probe.logits(z_ND)[:, 1]).all()


def test_one_class_in_training_is_not_defined():
    z_ND, y_N, split = task()
    only = Split("s", np.flatnonzero(y_N == 2)[:5], split.validation, split.test)
    with pytest.raises(NotDefined, match="two classes"):
        fit_probes(z_ND, y_N, only, EvaluateConfig(), num_classes=3, seed=0)


def test_random_labels_score_at_chance():
    z_ND, y_N, split = task(num_nodes=2000)
    y_N = np.random.default_rng(9).permutation(y_N)
    probe = fit_probes(z_ND, y_N, split, EvaluateConfig(), num_classes=3, seed=0)[0]
    accuracy = (probe.predict(z_ND[split.test]) == y_N[split.test]).mean()
    assert accuracy == pytest.approx(1 / 3, abs=3 * np.sqrt(2 / 9 / len(split.test)) + 0.02)
