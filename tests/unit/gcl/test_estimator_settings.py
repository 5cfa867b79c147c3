"""Settings as keywords: defaults of the method, presets, devices, and errors that name the setting."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

import gcl
from gcl.estimator import ContrastiveEmbedding
from gcl.methods import METHODS, method_class
from gcl.methods.defaults import DEFAULTS
from gcl.smoothing import SmoothingConfig
from gcl.trainer_config import TrainConfig
from tests.methods import ON_ONE_GRAPH
from tests.tiny_estimators import GRAPH, by_method, reads_rows, small


@by_method
def test_settings_round_trip_and_clone(name):
    model = small(
        name, seed=5, learning_rate=1e-3, **({"smooth": {"alpha": 0.2}} if reads_rows(name) else {})
    )
    again = ContrastiveEmbedding.from_settings(model.settings, seed=5)
    assert again.settings == model.settings
    assert clone(model).settings == model.settings
    assert eval(repr(model), {"ContrastiveEmbedding": ContrastiveEmbedding}).settings == model.settings
    assert ContrastiveEmbedding.from_settings(model.settings, epochs=7).train_config.epochs == 7


@by_method
def test_no_setting_of_a_method_shares_its_name_with_one_of_training(name):
    fields = set(method_class(name).Config.model_fields)
    assert not fields & (set(TrainConfig.model_fields) | {"method", "seed", "device", "smooth"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temprature": 1.0}, "temprature: dmat_i has no such setting; did you mean temperature?"),
        ({"temperature": -1.0}, r"temperature: Input should be greater than 0 \(got -1.0\)"),
        ({"epochs": 0}, r"epochs: .* \(got 0\)"),
        ({"smooth": {"alpha": 2}}, r"smooth.alpha: .* \(got 2\)"),
        ({"smooth": {"alhpa": 2}}, "smooth.alhpa: there is no such setting"),
        ({"augmentations": ()}, "DmatIConfig|settings|augmentations"),
        ({"smooth": 2}, "smooth: settings by name, .* not 2"),
        ({"smooth": "ppr"}, "smooth: settings by name, .* not 'ppr'"),
        ({"seed": -1}, "seed: a whole number"),
        ({"seed": 1.5}, "seed: a whole number .* not 1.5"),
        ({"seed": "a"}, "seed: a whole number .* not 'a'"),
        ({"method": "dmat"}, "unknown method 'dmat'; known: .*dmat_i"),
    ],
)
def test_wrong_settings_are_refused_at_once_and_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveEmbedding(**{"method": "dmat_i", **settings})


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(ON_ONE_GRAPH)))
def test_methods_for_other_data_are_refused_at_once_in_a_notebooks_words(name):
    with pytest.raises(
        ValueError, match=f"^{name} .*ContrastiveEmbedding takes one graph.*gclflow run"
    ) as told:
        ContrastiveEmbedding(name)
    assert "dataset." not in str(told.value)
    if name == "augcl_graph":
        assert "'augcl' embeds its nodes" in str(told.value)


def test_a_method_that_asks_for_a_count_of_clusters_says_how_to_give_it():
    with pytest.raises(ValueError, match=r"num_clusters=K\), or fit\(graph, num_classes=K\)"):
        small("hsan", num_clusters="classes").fit(GRAPH)
    with pytest.raises(ValueError, match=r"hsan uses no labels: .*their number alone, num_classes=K"):
        small("hsan", num_clusters="classes").fit(GRAPH, labels=np.arange(GRAPH.num_nodes) % 3)
    with pytest.raises(ValueError, match="grace uses no labels: leave them out$"):
        small("grace").fit(GRAPH, labels=np.arange(GRAPH.num_nodes) % 3)
    z_ND = small("hsan", num_clusters="classes").fit_embed(GRAPH, num_classes=3)
    assert np.array_equal(z_ND, small("hsan", num_clusters=3).fit_embed(GRAPH))


def test_smoothing_settings_are_refused_where_nothing_is_smoothed():
    names = [name for name in ON_ONE_GRAPH if not reads_rows(name)]
    for name in names:
        with pytest.raises(ValueError, match="reads the graph itself"):
            ContrastiveEmbedding(name, smooth={"alpha": 0.2})
        sections = {"method": {"name": name}, "smooth": {"alpha": 0.2}, "cluster": {"num_clusters": 3}}
        assert ContrastiveEmbedding.from_settings(sections).smoothing_config is None


def test_preset_of_the_pipeline_is_read():
    import tomllib

    file = Path(gcl.__file__).parents[1] / "flows" / "presets" / "digits.toml"
    model = ContrastiveEmbedding.from_settings(tomllib.loads(file.read_text()), epochs=3)
    assert (model.method_config.embedding_size, model.train_config.epochs) == (64, 3)
    assert model.smoothing_config == SmoothingConfig(normalise_input="l2", normalise_output="l2")


def test_smoothing_as_a_config_or_a_mapping():
    config = SmoothingConfig(alpha=0.5, num_steps=2)
    first = small("dmat_i", smooth=config).fit_embed(GRAPH)
    assert np.array_equal(first, small("dmat_i", smooth={"alpha": 0.5, "num_steps": 2}).fit_embed(GRAPH))
    assert not np.array_equal(first, small("dmat_i").fit_embed(GRAPH))


def test_set_params_forgets_the_fit():
    model = small("dmat_i").fit(GRAPH)
    assert model.set_params(temperature=0.5).method_config.temperature == 0.5
    with pytest.raises(ValueError, match="not fitted"):
        model.embed()
    with pytest.raises(ValueError, match="temperature"):
        model.set_params(temperature=0)
    assert model.method_config.temperature == 0.5


@by_method
def test_what_is_not_given_is_as_the_method_has_it(name):
    model = ContrastiveEmbedding(name)
    for section, config in (("train", model.train_config), ("smooth", model.smoothing_config)):
        for field, value in DEFAULTS[name].sections.get(section, {}).items():
            assert getattr(config, field) == value
    again = ContrastiveEmbedding(name, epochs=3)
    assert again.train_config == model.train_config.model_copy(update={"epochs": 3})


@by_method
def test_the_pipeline_takes_the_same_defaults(name):
    from flows.config import load_config

    config = load_config(preset="none", overrides=[f"method.name={name}", "dataset.format=synthetic"])[0]
    model = ContrastiveEmbedding(name)
    assert (model.method_config, model.train_config) == (config.method, config.train)
    assert model.smoothing_config == (config.smooth if reads_rows(name) else None)


@by_method
def test_sections_that_leave_settings_out_have_the_plain_ones(name):
    model = ContrastiveEmbedding.from_settings({"method": {"name": name}})
    assert model.train_config == TrainConfig()
    assert model.method_config == method_class(name).Config()
    assert model.smoothing_config == (SmoothingConfig() if reads_rows(name) else None)
    assert clone(model).settings == model.settings
    changed = ContrastiveEmbedding.from_settings({"method": {"name": name}}, epochs=3, weight_decay=0.5)
    assert changed.train_config == TrainConfig(epochs=3, weight_decay=0.5)


def test_smoothing_of_sections_is_beside_the_plain_one():
    hsan = {"method": {"name": "hsan"}}
    for smooth in ({"num_steps": 3}, {"filter": "sgc"}, {"filter": "heat"}):
        sections = ContrastiveEmbedding.from_settings({**hsan, "smooth": smooth})
        assert sections.smoothing_config == SmoothingConfig(**smooth)
        assert ContrastiveEmbedding.from_settings(hsan, smooth=smooth).settings == sections.settings
    whole = SmoothingConfig(alpha=0.3)
    assert ContrastiveEmbedding.from_settings(hsan, smooth=whole).smoothing_config == whole


def test_smoothing_that_is_given_is_beside_the_methods():
    def smoothing(smooth):
        return ContrastiveEmbedding("hsan", smooth=smooth).smoothing_config

    assert smoothing({"num_components": 4}) == SmoothingConfig(filter="sgc", num_steps=2, num_components=4)
    assert smoothing({"filter": "heat"}) == SmoothingConfig(filter="heat")
    assert smoothing(SmoothingConfig()) == SmoothingConfig()


def test_defaults_follow_when_the_method_is_changed():
    model = ContrastiveEmbedding("grace", learning_rate=0.5)
    model.set_params(method="hsan")
    assert (model.train_config.epochs, model.train_config.learning_rate) == (400, 0.5)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "no CUDA device here.*take 'cpu'"),
        ("cuda:1", "no CUDA device here"),
        ("gpu", "device: a torch device .* not 'gpu'"),
        (None, "device: a torch device .* not None"),
    ],
)
def test_a_device_that_is_not_there_is_refused_at_once(device, message, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        ContrastiveEmbedding("dmat_i", device=device)
    folder = small("dmat_i").fit(GRAPH).save(tmp_path)
    with pytest.raises(ValueError, match=message):
        ContrastiveEmbedding.load(folder, device=device)


def test_a_number_of_a_device_beyond_those_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for device in ("cpu", "cuda", "cuda:1"):
        assert ContrastiveEmbedding("dmat_i", device=device).device == device
    with pytest.raises(ValueError, match="cuda:2 is not there; CUDA devices here: 2"):
        ContrastiveEmbedding("dmat_i", device="cuda:2")
