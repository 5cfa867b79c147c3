"""Settings of the methods, apart from the methods so that reading them costs no torch.

`MethodConfig` is the union that the pipeline's `method.*` fields are read into, told apart by `name`.
"""

from typing import Annotated

from pydantic import Field

from gcl.methods.configs.dmat import DmatIConfig, DmtConfig
from gcl.methods.configs.grace import GraceConfig
from gcl.methods.configs.rows import RowEncoderConfig

MethodConfig = Annotated[DmatIConfig | DmtConfig | GraceConfig, Field(discriminator="name")]

__all__ = ["DmatIConfig", "DmtConfig", "GraceConfig", "MethodConfig", "RowEncoderConfig"]
