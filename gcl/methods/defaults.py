"""What a method is trained with where nobody says: the epochs, step sizes and filter its docstring names.

Settings of the other stages have one default for all methods, in their own classes, and presets and
configuration files rest on those alone. A graph of one's own rests on these. Reading them costs no torch.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class MethodDefaults:
    """Where a method's defaults differ from those of the stages, and why.

    Attributes:
        source: where the numbers come from, in a line.
        sections: settings by section of the pipeline and field; what is not named keeps its plain default.
    """

    source: str
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_GRACE_TRAINING = {"epochs": 200, "learning_rate": 5e-4, "weight_decay": 1e-5}

_GRAPHCL_TRAINING = {"epochs": 40, "learning_rate": 0.01, "batch_size": 128}

DEFAULTS: dict[str, MethodDefaults] = {
    "augcl": MethodDefaults(
        "training of GRACE, its own being unpublished; weights from epoch 100 on, halfway (ours)",
        {"train": _GRACE_TRAINING},
    ),
    "augcl_graph": MethodDefaults("released schedule, mala-lab/AUGCL", {"train": _GRAPHCL_TRAINING}),
    "dmat_i": MethodDefaults("chosen for it on validation nodes of Cora and CiteSeer"),
    "dmt": MethodDefaults(
        "filter and step size of dmat_i; its labels make few steps an epoch, one of 140, so five times the "
        "epochs (ours, see its class)",
        {"train": {"epochs": 100}},
    ),
    "grace": MethodDefaults(
        "released settings for Cora, CRIPAC-DIG/GRACE, config.yaml", {"train": _GRACE_TRAINING}
    ),
    "graphcl": MethodDefaults(
        "released run script, Shen-Lab/GraphCL, unsupervised_TU",
        {"train": _GRAPHCL_TRAINING | {"epochs": 20}},
    ),
    "hgcvae": MethodDefaults(
        "released settings for DBLP, ashes1106/HVGAE at fe97c73",
        {"train": {"epochs": 40, "learning_rate": 4e-4}},
    ),
    "hsan": MethodDefaults(
        "yueliu1999/HSAN at e9ad59b, for data sets it does not name; without its 500 principal components, "
        "more than a narrow or small graph has",
        {
            "smooth": {"filter": "sgc", "num_steps": 2, "convolution": 0.5},
            "train": {"epochs": 400, "learning_rate": 1e-3},
            "cluster": {"normalise": False},
        },
    ),
    "nml_gcl": MethodDefaults(
        "released settings for Cora, mitsuha0258/NML-GCL at 32b6013",
        {"train": {"epochs": 200, "learning_rate": 5e-4, "weight_decay": 1e-3}},
    ),
    "progcl_graph": MethodDefaults(
        "schedule of augcl_graph, so that the weights alone differ (ours)", {"train": _GRAPHCL_TRAINING}
    ),
    "progcl": MethodDefaults(
        "training of GRACE; the mixture from epoch 100 on, halfway (ours), where junxia97/ProGCL has 400 of "
        "1,000 to 2,500",
        {"method": {"start_epoch": 100}, "train": _GRACE_TRAINING},
    ),
}


def method_defaults(name: object, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The defaults that a run of a method takes under the settings it was given.

    Args:
        name: key in `gcl.methods.METHODS`; of anything else there are none.
        given: settings by section and field, perhaps not valid yet. What they set is left out; and all of
            the method's smoothing where they choose another filter, which has a number of steps of its own.

    Returns:
        settings by section and field, the caller's to change.
    """
    known = DEFAULTS.get(name) if isinstance(name, str) else None
    taken: dict[str, dict[str, Any]] = {}
    for section, defaults in (known.sections if known else {}).items():
        settings = given.get(section, {})
        if not isinstance(settings, Mapping):  # will be refused
            continue
        chosen = settings.get("filter") if section == "smooth" else None
        if chosen is not None and chosen != defaults.get("filter"):
            continue
        if left := {field: value for field, value in defaults.items() if field not in settings}:
            taken[section] = deepcopy(left)
    return taken


def flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Settings by their full key, as ``train.epochs``."""
    return {
        f"{section}.{name}": value for section, fields in sections.items() for name, value in fields.items()
    }
