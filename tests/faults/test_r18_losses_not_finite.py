"""R18: NaN or infinity in any term of any method's loss stops before the step; the checkpoint stays good."""

import numpy as np
import pytest
import torch

from gcl.errors import NonFiniteLoss
from gcl.trainer import train
from gcl.trainer_config import TrainConfig
from tests.unit.gcl.test_method_battery import SETTINGS as METHOD_SETTINGS
from tests.unit.gcl.test_method_battery import equal, make_data, make_method, weights

pytestmark = pytest.mark.fault
SETTINGS = TrainConfig(epochs=3, batch_size=64, checkpoint_every=1)
VALUES = {"nan": float("nan"), "inf": float("inf"), "minus inf": float("-inf")}


def terms_of(config) -> set[str]:  # type: ignore[no-untyped-def]
    method, data = make_method(config), make_data(config.name)
    return set(train(method, data, TrainConfig(epochs=1, batch_size=64), seed=0).history[0]) - {"epoch"}


@pytest.mark.parametrize("config", METHOD_SETTINGS.values(), ids=METHOD_SETTINGS.keys())
def test_training_survives_a_term_that_is_not_finite(config, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """In the second epoch, term by term; the values take turns."""
    unbroken, data = make_method(config), make_data(config.name)
    expected = train(unbroken, data, SETTINGS, seed=0).history
    terms = sorted(terms_of(config))
    assert "loss" in terms
    for number, term in enumerate(terms):
        value, folder = list(VALUES.values())[number % 3], tmp_path / term
        method, before = make_method(config), {}
        original = method.losses

        def spoiled(batch, *, epoch, step, seed, term=term, value=value, method=method, before=before,
                    original=original):  # fmt: skip
            for parts in original(batch, epoch=epoch, step=step, seed=seed):
                if epoch == 1 and term in parts:  # methods that take turns have a step's own terms
                    parts[term] = parts[term] + value
                    before.update(weights(method))
                yield parts

        method.losses = spoiled
        with pytest.raises(NonFiniteLoss) as caught:
            train(method, data, SETTINGS, seed=0, checkpoint_dir=folder)
        assert (caught.value.epoch, caught.value.term) == (2, term)
        after = weights(method)
        learned = {name for name, _ in method.named_parameters()}
        assert all(torch.equal(before[name], after[name]) for name in learned), "a step was taken with it"
        resumed = make_method(config)
        result = train(resumed, data, SETTINGS, seed=0, checkpoint_dir=folder)
        assert result.resumed_from == 1
        assert result.history == expected
        assert equal(weights(resumed), weights(unbroken))


@pytest.mark.parametrize("config", METHOD_SETTINGS.values(), ids=METHOD_SETTINGS.keys())
def test_training_survives_a_gradient_that_is_not_finite(config) -> None:  # type: ignore[no-untyped-def]
    """The loss is finite, and the gradient of one parameter is not."""
    method, data = make_method(config), make_data(config.name)
    before = {name: parameter.detach().clone() for name, parameter in method.named_parameters()}
    for parameter in method.parameters():
        parameter.register_hook(lambda gradient: gradient * np.nan)
    with pytest.raises(NonFiniteLoss, match="gradient of") as caught:
        train(method, data, SETTINGS, seed=0)
    assert caught.value.epoch == 1
    for name, parameter in method.named_parameters():
        assert torch.equal(parameter.detach(), before[name]), name
