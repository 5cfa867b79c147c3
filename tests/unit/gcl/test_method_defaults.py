"""Defaults of methods: every method has them, they fit its settings, and no torch is needed to read them."""

import re
import subprocess
import sys

import pytest

from gcl.clustering.config import ClusterConfig
from gcl.methods import METHODS, method_class
from gcl.methods.defaults import DEFAULTS, flat, method_defaults
from gcl.smoothing import SmoothingConfig
from gcl.trainer_config import TrainConfig

SECTIONS = {"smooth": SmoothingConfig, "train": TrainConfig, "cluster": ClusterConfig}
by_method = pytest.mark.parametrize("name", sorted(METHODS))


def test_every_method_has_defaults_and_nothing_else_does():
    assert set(DEFAULTS) == set(METHODS)
    assert method_defaults("unheard", {}) == method_defaults([1], {}) == method_defaults(None, {}) == {}


@by_method
def test_values_fit_and_differ_from_the_plain_ones(name):
    assert DEFAULTS[name].source
    for section, values in DEFAULTS[name].sections.items():
        known = SECTIONS.get(section, method_class(name).Config)
        config = known(**values)
        for field, value in values.items():
            assert getattr(config, field) == value
        assert any(known.model_fields[field].default != value for field, value in values.items())
    assert "smooth" not in DEFAULTS[name].sections or "smoothed" in method_class(name).inputs


@pytest.mark.parametrize(
    ("name", "named"),
    [("hsan", ("Adam at 1e-3", "400 epochs")), ("nml_gcl", ("5e-4", "weight decay 1e-3", "200 epochs"))],
)
def test_numbers_are_those_of_the_docstring(name, named):
    text = re.search(r"Defaults and their source:(.*?)\n\n", method_class(name).__doc__, re.DOTALL)[1]
    text = " ".join(text.split())
    training = DEFAULTS[name].sections["train"]
    assert all(word in text for word in named)
    assert training["epochs"] == {"hsan": 400, "nml_gcl": 200}[name]
    assert training["learning_rate"] == {"hsan": 1e-3, "nml_gcl": 5e-4}[name]


@pytest.mark.parametrize(("name", "field"), [("progcl", "start_epoch"), ("augcl", "warmup_epochs")])
def test_weights_have_as_many_epochs_as_the_start_without_them(name, field):
    sections = DEFAULTS[name].sections
    config = method_class(name).Config(**sections.get("method", {}))
    assert 2 * getattr(config, field) == sections["train"]["epochs"]


def test_what_is_given_is_left_out():
    given = {"train": {"epochs": 3}, "cluster": 3}
    assert method_defaults("hsan", given) == {
        "smooth": {"filter": "sgc", "num_steps": 2, "convolution": 0.5},
        "train": {"learning_rate": 1e-3},
    }
    assert "train" not in method_defaults("hsan", {"train": {"epochs": 3, "learning_rate": 1.0}})


@pytest.mark.parametrize(("chosen", "is_taken"), [("sgc", True), ("heat", False), (3, False)])
def test_another_filter_leaves_the_methods_smoothing_out(chosen, is_taken):
    taken = method_defaults("hsan", {"smooth": {"filter": chosen}})
    assert taken.get("smooth") == ({"num_steps": 2, "convolution": 0.5} if is_taken else None)


def test_what_is_handed_out_can_be_changed():
    method_defaults("grace", {})["train"]["epochs"] = 1
    assert method_defaults("grace", {})["train"]["epochs"] == 200
    assert DEFAULTS["grace"].sections["train"] is not method_defaults("grace", {})["train"]


def test_full_keys():
    assert flat({"train": {"epochs": 3}, "smooth": {"alpha": 0.5}}) == {
        "train.epochs": 3,
        "smooth.alpha": 0.5,
    }


def test_reading_them_costs_no_torch():
    code = "import sys, gcl.methods.defaults; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
