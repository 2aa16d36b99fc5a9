"""Who may see which batches: one rule, in Python here and in SQL as `is_visible`.

The creator and the metadata of the lineage's root decide, so that a user who may see an import may
also see its reprocessings.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, Protocol

from pydantic_core import to_json

from ..sanitize import storable_json


class _Given(Enum):
    """Distinguishes a missing condition from None, which no batch fulfils."""

    NOTHING = "not given"


NOT_GIVEN: Literal[_Given.NOTHING] = _Given.NOTHING


class Owned(Protocol):
    """The root of a lineage, as rules read it."""

    @property
    def batch_type(self) -> str:
        """Its batch type."""

    @property
    def created_by(self) -> str | None:
        """The user who created it."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The caller's metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """Which batches of a type a user may see; reprocessings are visible with their root.

    Every given condition must be fulfilled. No batch fulfils None: for an anonymous caller
    ``Visible(created_by=ctx.user_id)`` shows nothing, and neither does ``Visible()``.
    `Visible.all` shows everything.

    Attributes:
        created_by: Only batches created by this user.
        metadata: Only batches whose metadata contains all of this, as PostgreSQL's ``@>`` has it:
            objects may have more members, lists more elements.
        everything: Set by `all`.

    Raises:
        TypeError: The user is not a text, or the metadata is not a mapping of JSON values.
    """

    created_by: str | Literal[_Given.NOTHING] | None = NOT_GIVEN
    metadata: Mapping[str, Any] | Literal[_Given.NOTHING] | None = NOT_GIVEN
    everything: bool = False
    _wanted: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.created_by is not NOT_GIVEN and not isinstance(self.created_by, str | None):
            raise TypeError(f"created_by must be a text, not {self.created_by!r}.")
        if self.metadata is NOT_GIVEN or self.metadata is None:
            return
        if not isinstance(self.metadata, Mapping):
            raise TypeError(f"metadata must be a mapping, not {self.metadata!r}.")
        object.__setattr__(self, "_wanted", _as_stored(self.metadata))

    @classmethod
    def all(cls) -> "Visible":
        """Every batch."""
        return cls(everything=True)

    @classmethod
    def of(cls, answer: object) -> "Visible":
        """The rule that a `visible_batches` hook has returned.

        Raises:
            TypeError: The answer is not True, False, None or a `Visible`.
        """
        if isinstance(answer, Visible):
            return answer
        if answer is True:
            return cls.all()
        if answer is False or answer is None:
            return cls()
        raise TypeError(
            f"visible_batches must return True, False or Visible, not {type(answer).__name__}."
        )

    def shows(self, root: Owned) -> bool:
        """Whether this rule shows the lineage of a root batch."""
        rule = self.as_rule()
        if isinstance(rule, bool):
            return rule
        if "created_by" in rule and root.created_by != rule["created_by"]:
            return False
        return "metadata" not in rule or contains(dict(root.metadata), rule["metadata"])

    def as_rule(self) -> bool | dict[str, Any]:
        """The rule as `is_visible` takes it."""
        conditions = (self.created_by, self.metadata)
        given = [condition for condition in conditions if condition is not NOT_GIVEN]
        if self.everything or not given or None in given:
            return self.everything and None not in given
        rule: dict[str, Any] = {}
        if self.created_by is not NOT_GIVEN:
            rule["created_by"] = self.created_by
        if self.metadata is not NOT_GIVEN:
            rule["metadata"] = self._wanted
        return rule


@dataclass(frozen=True, slots=True)
class Visibility:
    """What a user may see, by batch type.

    Attributes:
        types: The rules of some batch types.
        otherwise: The rule of all other types.
    """

    types: Mapping[str, Visible]
    otherwise: Visible

    @classmethod
    def of(cls, given: "Mapping[str, Visible | bool] | Visibility | None") -> "Visibility":
        """Rules by type; types without a rule are not restricted."""
        if isinstance(given, Visibility):
            return given
        return cls({name: Visible.of(rule) for name, rule in (given or {}).items()}, Visible.all())

    def rule(self, batch_type: str) -> Visible:
        """The rule of a batch type."""
        return self.types.get(batch_type, self.otherwise)

    def shows(self, root: Owned) -> bool:
        """Whether the user may see the lineage of a root batch."""
        return self.rule(root.batch_type).shows(root)

    @property
    def nothing(self) -> bool:
        """Whether the user may not see any batch."""
        return not any(rule.as_rule() for rule in (self.otherwise, *self.types.values()))

    def as_json(self) -> str | None:
        """The rules as statements take them; None if everything is visible."""
        types = {name: rule.as_rule() for name, rule in self.types.items()}
        otherwise = self.otherwise.as_rule()
        if all(rule is True for rule in (otherwise, *types.values())):
            return None
        return _text({"types": types, "otherwise": otherwise})


def contains(whole: Any, part: Any) -> bool:
    """Whether JSON data contain other data, as PostgreSQL's ``@>`` defines it for two objects."""
    match part:
        case dict():
            return isinstance(whole, dict) and all(
                name in whole and contains(whole[name], value) for name, value in part.items()
            )
        case list():
            return isinstance(whole, list) and all(
                any(contains(element, wanted) for element in whole) for wanted in part
            )
    return not isinstance(whole, dict | list) and _scalar(whole) == _scalar(part)


def _scalar(value: Any) -> tuple[type, Any]:
    """A value that is only equal to values of its kind: true is not 1, but 1.0 is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Decimal, Decimal(repr(value))
    return type(value), value


def _as_stored(metadata: Mapping[str, Any]) -> Any:
    """Metadata in the form in which it would be stored with a batch."""
    try:
        return json.loads(_text(dict(metadata)))
    except ValueError as exc:
        raise TypeError(f"metadata must hold JSON values: {exc}") from exc


def _text(value: Any) -> str:
    return storable_json(to_json(value, inf_nan_mode="strings").decode())
