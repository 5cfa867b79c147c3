"""Settings of the methods, apart from the methods so that reading them costs no torch.

`MethodConfig` is the union that the pipeline's `method.*` fields are read into, told apart by `name`.
"""

from typing import Annotated

from pydantic import Field

from gcl.methods.configs.augcl import AugclConfig
from gcl.methods.configs.dmat import DmatIConfig, DmtConfig
from gcl.methods.configs.grace import GraceConfig
from gcl.methods.configs.graphcl import AugclGraphConfig, GraphClConfig, ProGclGraphConfig
from gcl.methods.configs.hgcvae import HgcvaeConfig
from gcl.methods.configs.hsan import HsanConfig
from gcl.methods.configs.nml_gcl import NmlGclConfig
from gcl.methods.configs.progcl import ProGclConfig

MethodConfig = Annotated[
    AugclConfig
    | AugclGraphConfig
    | DmatIConfig
    | DmtConfig
    | GraceConfig
    | GraphClConfig
    | HgcvaeConfig
    | HsanConfig
    | NmlGclConfig
    | ProGclConfig
    | ProGclGraphConfig,
    Field(discriminator="name"),
]

__all__ = [
    "AugclConfig",
    "AugclGraphConfig",
    "DmatIConfig",
    "DmtConfig",
    "GraceConfig",
    "GraphClConfig",
    "HgcvaeConfig",
    "HsanConfig",
    "MethodConfig",
    "NmlGclConfig",
    "ProGclConfig",
    "ProGclGraphConfig",
]
