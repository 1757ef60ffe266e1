"""What all models of studies and specs share, and how a key can be added later without renaming a run."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

AS_WRITTEN = {"as_written": True}  # validation context of a file that an older version of this program may have written


@dataclass(frozen=True)
class Introduced:
    """Marks a key that was added after run ids had been frozen.

    `value` is what happened before the key existed, and never changes: a spec at this value has the id that it had
    without the key, and a spec file without the key means this value. The key's default is another matter, and may
    change. Written as `beta: Annotated[float, Introduced(0.0)] = 0.1`.
    """

    value: Any


@cache
def introduced(model: type[BaseModel]) -> dict[str, Any]:
    """Return {key: introduction value} of the keys of `model` that were added later."""
    marks = [(key, mark) for key, field in model.model_fields.items() for mark in field.metadata]
    return {key: mark.value for key, mark in marks if isinstance(mark, Introduced)}


class Strict(BaseModel):
    """A frozen model that takes no unknown keys, no infinity, and no value of another type, such as 1 for true."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, raw: Any, info: ValidationInfo) -> Any:
        """Give keys that an older file lacks the value that they had before they existed, not today's default."""
        older = isinstance(raw, dict) and info.context and "as_written" in info.context
        return introduced(cls) | raw if older else raw

    def canonical(self) -> dict[str, Any]:
        """Return the model as plain values, without keys at their introduction value."""
        later = introduced(type(self))
        values = {key: getattr(self, key) for key in type(self).model_fields}
        return {key: _plain(one) for key, one in values.items() if key not in later or one != later[key]}


def _plain(value: Any) -> Any:
    if isinstance(value, Strict):
        return value.canonical()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
