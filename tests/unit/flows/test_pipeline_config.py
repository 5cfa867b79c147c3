"""Configurations: presets, files and overrides composed; every error names the field."""

from pathlib import Path

import pytest

from flows.config import (
    ConfigurationError,
    PipelineConfig,
    defaults_taken,
    load_config,
    preset_names,
    read_preset,
    validate_config,
)


def load(*overrides: str, **options: object) -> PipelineConfig:
    return load_config(overrides=overrides, **options)[0]  # type: ignore[arg-type]


def test_overrides_are_toml_values_or_plain_text() -> None:
    config = load(
        "dataset.format=synthetic", "train.epochs=7", "train.learning_rate=1e-4",
        "method.use_bias=false", "cluster.num_clusters=2..5",
        "evaluate.probe_c=[0.5, 1.0]", 'dataset.name="quoted"', "train.deadline_seconds = 3 ",
    )  # fmt: skip
    assert (config.train.epochs, config.train.learning_rate, config.train.deadline_seconds) == (7, 1e-4, 3)
    assert config.method.use_bias is False
    assert config.cluster.num_clusters == "2..5"
    assert config.evaluate.probe_c == (0.5, 1.0)
    assert config.dataset.name == "quoted"


def test_later_overrides_win_over_earlier_ones_and_over_the_preset() -> None:
    config = load("train.epochs=7", "train.epochs=9", preset="digits")
    assert config.train.epochs == 9
    assert config.method.embedding_size == 64, "from the preset"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=0", "train.epochs: Input should be greater than or equal to 1 (got 0)"),
        ("train.epochs=many", "train.epochs: Input should be a valid integer"),
        ("train.epoch=3", "train.epoch: there is no such field"),
        ("trian.epochs=3", "trian: there is no such field"),
        ("method.temperature=nan", "method.temperature: "),
        ("method.temperature=1e309", "method.temperature: "),
        ("method.temperature=-1", "method.temperature: Input should be greater than 0 (got -1)"),
        ("method.name=unheard", "method: "),
        ("dataset.format=unheard", "dataset: "),
        ("dataset.format=planetoid", "dataset.path: Field required"),
        ("dataset={format='digits_knn', name='../../etc'}", "dataset.name: "),
        ("dataset={format='digits_knn', nodes=3}", "dataset.nodes: there is no such field"),
        ("dataset=3", "dataset: "),
        ("method=dmt", "method: "),
        ("method.name=[1]", "method: "),
        ("cluster.num_clusters=5..2", "cluster.num_clusters: "),
        ("smooth.filter=weights", "smooth: Value error, weights and filter"),
        ("seed=-1", "seed: "),
        (f"seed=1{'0' * 5000}", "seed: "),
        ("train", "--set takes KEY=VALUE"),
        ("=3", "--set takes KEY=VALUE"),
        ("train..epochs=3", "--set takes KEY=VALUE"),
        ("train.epochs;x=3", "--set takes KEY=VALUE"),
    ],
)
def test_a_wrong_override_is_refused_with_the_fields_path(override: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(override)
    assert message in str(caught.value)
    assert all(len(line) < 300 for line in str(caught.value).splitlines())


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load("train.epochs=0", "smooth.alpha=2", "nonsense=1")
    assert [line.partition(":")[0] for line in sorted(str(caught.value).splitlines())] == [
        "nonsense", "smooth.alpha", "train.epochs"
    ]  # fmt: skip


def test_the_preset_made_for_a_data_set_and_method_is_used_unasked() -> None:
    asked = ["dataset.format=digits_knn", "dataset.name=digits"]
    assert load_config(overrides=asked)[1] == "digits"
    assert load_config(overrides=[*asked, "train.epochs=3"])[0].train.epochs == 3
    assert load_config(overrides=[*asked, "method.name=dmt"])[1] is None, "made for another method"
    assert load_config(overrides=["dataset.format=synthetic", "dataset.name=digits"])[1] is None
    config, used = load_config(preset="none", overrides=asked)
    assert used is None
    assert config.train == PipelineConfig().train


def test_without_a_preset_a_run_rests_on_its_methods_defaults() -> None:
    plain = PipelineConfig()
    for options in ({}, {"preset": "none"}):
        hsan = load("method.name=hsan", "dataset.format=synthetic", **options)
        assert (hsan.train.epochs, hsan.train.learning_rate) == (400, 1e-3)
        assert (hsan.smooth.filter, hsan.smooth.num_steps, hsan.smooth.num_components) == ("sgc", 2, None)
        assert hsan.cluster.normalise is False
        progcl = load("method.name=progcl", "dataset.format=synthetic", **options)
        assert (progcl.train.epochs, progcl.method.start_epoch) == (200, 100)
        dmt = load("method.name=dmt", "dataset.format=synthetic", **options)
        assert (dmt.train.epochs, dmt.train.learning_rate, dmt.smooth) == (100, 1e-4, plain.smooth)
        config = load("method.name=dmat_i", "dataset.format=synthetic", **options)
        assert (config.train, config.smooth, config.cluster) == (plain.train, plain.smooth, plain.cluster)


def test_overrides_win_over_the_methods_defaults_one_by_one() -> None:
    config = load("method.name=grace", "dataset.format=synthetic", "train.epochs=3")
    assert (config.train.epochs, config.train.learning_rate, config.train.weight_decay) == (3, 5e-4, 1e-5)
    assert defaults_taken(["method.name=grace", "train.epochs=3"]) == {
        "train.learning_rate": 5e-4,
        "train.weight_decay": 1e-5,
    }
    other = load("method.name=hsan", "dataset.format=synthetic", "smooth.filter=ppr")
    assert other.smooth == PipelineConfig().smooth, "another filter takes its own number of steps"
    assert load("method.name=hsan", "dataset.format=synthetic", "smooth.num_steps=3").smooth.filter == "sgc"
    assert defaults_taken([]) == {} == defaults_taken(["method=grace"])


def test_presets_and_files_rest_on_the_plain_defaults(tmp_path: Path) -> None:
    plain = PipelineConfig()
    file = tmp_path / "run.toml"
    file.write_text('[method]\nname = "hsan"\n')
    config, used = load_config(file=file)
    assert used is None
    assert (config.train, config.smooth, config.cluster) == (plain.train, plain.smooth, plain.cluster)


@pytest.mark.parametrize("dataset", ["cora", "citeseer"])
def test_augcl_has_graces_settings_and_says_which_numbers_are_ours(dataset: str) -> None:
    asked = ["dataset.format=planetoid", f"dataset.name={dataset}", "dataset.path=x"]
    config, used = load_config(overrides=[*asked, "method.name=augcl"])
    assert used == f"{dataset}-augcl"
    grace = load_config(overrides=[*asked, "method.name=grace"])[0]
    assert (config.train, config.smooth) == (grace.train, grace.smooth)
    shared = set(type(grace.method).model_fields) - {"name"}
    assert [f for f in shared if getattr(config.method, f) != getattr(grace.method, f)] == []
    assert (config.method.warmup_epochs, config.train.epochs) == (100, 200)
    source = read_preset(used)["about"]["source"]
    assert "unpublished" in source and "ours: warm-up 100 of 200 epochs" in source


def test_another_variant_drops_the_fields_of_the_presets_own() -> None:
    config = load("method.name=dmt", "dataset.format=synthetic", preset="digits")
    assert config.method.name == "dmt"
    assert config.method.embedding_size == 512, "not the preset's"


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="'nope'.*digits"):
        load(preset="nope")
    assert "digits" in preset_names()


def test_a_file_holds_the_same_keys(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('seed = 3\n[about]\nnote = "free"\n[train]\nepochs = 4\n')
    config, used = load_config(file=file, overrides=["train.batch_size=8"])
    assert (config.seed, config.train.epochs, config.train.batch_size, used) == (3, 4, 8, None)
    with pytest.raises(ConfigurationError, match="not both"):
        load_config(file=file, preset="digits")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed = ", "run.toml"),
        (b"\xff\xfe", "run.toml"),
        (b"seed = 1" + b"0" * 5000, "run.toml"),
        (b"a = " + b"[" * 100_000, "run.toml"),
        (b"train" + b".a" * 12 + b" = 1", "nested deeper than 8"),
        (b"seed = [[[[[[[[[1]]]]]]]]]", "nested deeper than 8"),
        (b"#" * (1 << 20) + b"\nseed = 1\n", "larger than"),
        (b"dataset = 3", "dataset: "),
        (b"seed = 1\nseed = 2", "run.toml"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        load_config(file=file)


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_file_that_cannot_be_read_is_a_wrong_configuration(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"absent|directory|No such"):
        load_config(file=tmp_path / name)


def test_every_field_says_what_it_is() -> None:
    def undescribed(model: type, prefix: str) -> list[str]:
        return [
            f"{prefix}.{name}"
            for name, field in model.model_fields.items()
            if not field.description and name != "format"
        ]  # type: ignore[attr-defined]

    config = PipelineConfig()
    models = [(type(getattr(config, name)), name) for name in type(config).model_fields]
    assert [
        path for model, name in models if hasattr(model, "model_fields") for path in undescribed(model, name)
    ] == []
    assert undescribed(PipelineConfig, "") == []


def test_a_configuration_survives_json() -> None:
    config = load("cluster.num_clusters=classes", preset="digits")
    assert validate_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "method", [("cluster_margin",), ("augmentation", "uncertainty.disagreement=membership")]
)
def test_margins_need_a_number_of_clusters_that_is_known_before_clustering(method: tuple[str, ...]) -> None:
    name, *more = method
    asked = (f"uncertainty.method={name}", *more)
    for number in ("auto", "2..8"):
        with pytest.raises(ConfigurationError, match=r"uncertainty\.num_clusters must be set"):
            load(*asked, f"cluster.num_clusters={number}")
        load(*asked, f"cluster.num_clusters={number}", "uncertainty.num_clusters=4")
    load(*asked, "cluster.num_clusters=classes")
    load(*asked, "cluster.num_clusters=4")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in preset_names()
        if read_preset(name)["config"]["method"]["name"] in ("augcl", "grace", "progcl")
    ],
)
def test_presets_of_grace_and_what_rests_on_it_scale_rows_to_sum_one_as_their_codes_do(name: str) -> None:
    assert read_preset(name)["config"]["method"]["normalise_input"] == "l1"
