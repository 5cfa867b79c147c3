"""R8: for every method, each field that can change a result changes the keys it reaches, and no other does.

Data formats and the other sections: tests/property/test_identity_property.py.
"""

from typing import Any

import pytest

from flows.config import validate_config
from gcl.config import affects_results
from gcl.methods import METHODS, method_class
from tasks.store import Store
from tests.property.test_identity_property import METHODS as PROPERTY_METHODS
from tests.property.test_identity_property import changed, fixed_code, keys, literals

__all__ = ["fixed_code"]  # a fixture that applies to this file too
pytestmark = pytest.mark.fault
OTHERS = sorted(set(METHODS) - {base["name"] for base in PROPERTY_METHODS})
VARIANTS: list[dict[str, Any]] = [{"name": name} for name in OTHERS]
# Fields that another field forbids, and what allows them.
ALLOWING: dict[str, list[dict[str, Any]]] = {
    "nml_gcl": [{"metric": "free_form", "alpha": 1.2, "alpha_scale": "none", "include_self": False}],
    "hsan": [{"num_clusters": 3}],
    "augcl": [{"estimator": "gambler"}],
    "augcl_graph": [{"estimator": "gambler"}],
    "hgcvae": [{"mode": "strict"}, {"mask_rate": 0.1}],
}


def data_for(name: str) -> dict[str, Any]:
    """The section of data that the method is accepted on; what it says is not read."""
    reads = method_class(name).inputs
    if "collection" in reads:
        return {"dataset": {"format": "tu_text", "name": "mutag", "path": "-"}}
    return {"dataset": {"format": "heco", "name": "acm", "path": "-"}} if "metapaths" in reads else {}


def fields_of(name: str) -> list[str]:
    model = type(validate_config(data_for(name) | {"method": {"name": name}}).method)
    return [field for field, info in model.model_fields.items() if len(literals(info.annotation)) != 1]


def another(name: str, field: str) -> tuple[Any, Any] | None:
    """A configuration, and the same with this one field changed."""
    for extra in ({}, *ALLOWING.get(name, [])):
        base = data_for(name) | {"method": {"name": name} | extra}
        if (found := changed(base, "method", field)) is not None:
            return validate_config(base), found
    return None


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("keys") / "store")


@pytest.mark.parametrize("name", OTHERS)
def test_every_field_of_a_method_reaches_its_keys_or_none(name: str, store: Store) -> None:
    """The method's own stage, and uncertainty where it embeds views (not by default); nothing before it."""
    unchanged = []
    for field in fields_of(name):
        pair = another(name, field)
        if pair is None:
            unchanged.append(field)
            continue
        before, after = keys(pair[0], store), keys(pair[1], store)
        differing = {stage for stage in before if before[stage] != after[stage]} - {"report"}
        expected = {"train"} if affects_results(type(pair[0].method), field) else set()
        assert differing == expected, field
    assert unchanged == [], "no other acceptable value found"
