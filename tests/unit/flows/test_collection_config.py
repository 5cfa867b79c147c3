"""What a method's name means on a collection of graphs, wherever the configuration comes from."""

from pathlib import Path

import pytest

from flows.config import ConfigurationError, defaults_taken, load_config, validate_config

TU = ("dataset.format=tu_text", "dataset.path=somewhere")


@pytest.mark.parametrize(("name", "meant"), [("augcl", "augcl_graph"), ("progcl", "progcl_graph")])
def test_on_a_collection_methods_mean_their_siblings(name: str, meant: str, tmp_path: Path) -> None:
    config, preset = load_config(overrides=[*TU, f"method.name={name}", "method.num_layers=5"])
    assert (config.method.name, config.method.num_layers, preset) == (meant, 5, None)
    assert config.train.epochs == 40, "the sibling's own defaults"
    assert defaults_taken([*TU, f"method.name={name}"])["train.batch_size"] == 128
    file = tmp_path / "run.toml"
    file.write_text(f'[dataset]\nformat = "tu_text"\npath = "x"\n[method]\nname = "{name}"\n')
    assert load_config(file=file)[0].method.name == meant
    values = {"dataset": {"format": "tu_text", "path": "x"}, "method": {"name": name}}
    assert validate_config(values).method.name == meant
    assert values["method"] == {"name": name}, "what was given is left alone"


def test_a_preset_keeps_its_settings_under_either_name() -> None:
    for name in ("augcl", "augcl_graph"):
        overrides = [f"method.name={name}", "dataset.path=x"]
        config, _ = load_config(preset="imdb-binary-augcl", overrides=overrides)
        assert (config.method.name, config.method.augmentation) == ("augcl_graph", "random3")


@pytest.mark.parametrize("name", ["mutag", "proteins", "nci1", "imdb-binary"])
def test_presets_are_found_by_data_and_method(name: str) -> None:
    layout = "tu_text" if name in ("mutag", "proteins") else "tu_powerful_gnns"
    for method in ("graphcl", "augcl"):
        overrides = [
            f"dataset.format={layout}",
            f"dataset.name={name}",
            "dataset.path=x",
            f"method.name={method}",
        ]
        assert load_config(overrides=overrides)[1] == f"{name}-{method}"


def test_on_one_graph_names_mean_what_they_say() -> None:
    assert load_config(overrides=["method.name=augcl"])[0].method.name == "augcl"
    assert load_config(overrides=[*TU, "method.name=dmat_i"])[0].method.name == "dmat_i"
    with pytest.raises(ConfigurationError, match="dataset: there is no format 'unheard'; planetoid, "):
        load_config(overrides=["dataset.format=unheard", "method.name=augcl"])
    with pytest.raises(ConfigurationError, match=r"method\.num_anchors: there is no such field"):
        load_config(overrides=[*TU, "method.name=augcl", "method.num_anchors=3"])


@pytest.mark.parametrize("name", ["graphcl", "augcl_graph", "progcl_graph"])
def test_on_one_graph_methods_on_collections_are_refused(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{name} embeds the graphs of a collection.*tu_text"
    ) as raised:
        load_config(overrides=[f"method.name={name}"])
    assert "\n" not in str(raised.value)


def test_the_page_says_which_presets_leave_epochs_for_weights() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "collections.md").read_text()
    assert (
        "`--preset mutag-graphcl --set method.name=augcl` keeps their encoder and views and takes the 40"
        in page
    )
    for preset in ("mutag-graphcl", "mutag-augcl"):
        config = load_config(preset=preset, overrides=["dataset.path=x", "method.name=augcl"])[0]
        assert (config.train.epochs, config.method.uniform_epochs) == (40, 20)
    for name in ("augcl", "progcl"):
        config = load_config(preset="none", overrides=[*TU, f"method.name={name}"])[0]
        assert config.train.epochs > config.method.uniform_epochs
