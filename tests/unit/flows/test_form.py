"""The parameter form: what is set comes first, and what is changed from run to run comes before the rest."""

from typing import Any

import pytest

from flows.form import arranged


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    from flows.pipeline import pipeline

    return pipeline.parameters.model_dump()


def first_kind(form: dict[str, Any], section: str) -> str:
    field = form["definitions"]["PipelineConfig"]["properties"][section]
    return str(form["definitions"][field["oneOf"][0]["$ref"].rpartition("/")[2]]["title"])


@pytest.mark.parametrize(
    ("dataset", "method"), [("csv", "hsan"), ("planetoid", "nml_gcl"), ("digits_knn", "dmat_i")]
)
def test_the_kind_that_is_set_is_the_tab_that_opens(
    schema: dict[str, Any], dataset: str, method: str
) -> None:
    form = arranged(schema, {"config": {"dataset": {"format": dataset}, "method": {"name": method}}})
    assert (first_kind(form, "dataset"), first_kind(form, "method")) == (dataset, method)


def test_every_kind_stays_to_be_chosen(schema: dict[str, Any]) -> None:
    form = arranged(schema, {"config": {"dataset": {"format": "csv"}}})
    kinds = [
        {kind["$ref"] for kind in document["definitions"]["PipelineConfig"]["properties"]["dataset"]["oneOf"]}
        for document in (form, schema)
    ]
    assert kinds[0] == kinds[1]
    assert len(kinds[0]) >= 9


def test_stages_to_compute_again_come_first_and_the_configuration_last(schema: dict[str, Any]) -> None:
    form = arranged(schema, {})
    by_position = sorted(form["properties"], key=lambda name: form["properties"][name]["position"])
    assert by_position[:2] == ["refresh", "until"]
    assert by_position[-1] == "config"
    assert set(by_position) == set(schema["properties"])
    assert not any("`" in node["description"] for node in form["properties"].values())


def test_sections_are_headed_as_in_a_configuration_file(schema: dict[str, Any]) -> None:
    definitions = arranged(schema, {})["definitions"]
    assert (definitions["SmoothingConfig"]["title"], definitions["TrainConfig"]["title"]) == (
        "smooth",
        "train",
    )


@pytest.mark.parametrize(
    "parameters", [{}, {"config": None}, {"config": {"dataset": {"format": "no"}}}, {"x": 1}]
)
def test_values_that_do_not_fit_change_nothing_but_the_order(
    schema: dict[str, Any], parameters: dict[str, Any]
) -> None:
    before = str(schema)
    assert set(arranged(schema, parameters)["properties"]) == set(schema["properties"])
    assert str(schema) == before
