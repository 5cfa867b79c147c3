"""Configuration models: frozen, closed, every field with a description and a bound.

A field *affects results* unless it is declared with `operational`; only fields that affect results
enter a stage's cache key.
"""

from pathlib import PurePath
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Config(BaseModel):
    """Base of every configuration model: immutable, unknown keys refused, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _none_is_nothing(cls, values: Any) -> Any:
        """Take "none" where a field may be None: TOML, and so ``--set KEY=none``, has no word for it."""
        if not isinstance(values, dict):
            return values
        optional = {
            name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)
        }
        return {
            name: None if name in optional and value == "none" else value for name, value in values.items()
        }

    @field_validator("*")
    @classmethod
    def _can_be_written(cls, value: Any) -> Any:
        """Refuse text that is not Unicode, as half a surrogate pair: no record of the run could hold it."""
        if isinstance(value, str | PurePath):
            try:
                str(value).encode()
            except UnicodeEncodeError:
                raise ValueError("is not valid text") from None
        return value


def operational(default: Any = ..., *, description: str, **bounds: Any) -> Any:
    """Declare a field that says how or where to work, but cannot change a result.

    Args:
        default: the field's default; required when omitted.
        description: what it does, with unit or range.
        **bounds: pydantic bounds (``ge``, ``le``, ...).
    """
    return Field(default, description=description, json_schema_extra={"affects_results": False}, **bounds)


def affects_results(model: type[BaseModel], name: str) -> bool:
    """Whether field `name` of `model` is part of the cache key."""
    extra = model.model_fields[name].json_schema_extra
    return not (isinstance(extra, dict) and extra.get("affects_results") is False)


def result_fields(config: BaseModel) -> dict[str, Any]:
    """The configuration as JSON types, without its operational fields, at every depth."""
    return {
        name: _plain(getattr(config, name))
        for name in sorted(type(config).model_fields)
        if affects_results(type(config), name)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return result_fields(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
