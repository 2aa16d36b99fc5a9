"""The columns of a file against the fields of a model, once, before any item runs."""

import dataclasses
import difflib
import types
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import AliasChoices, AliasPath, BaseModel, RootModel
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

from ..errors import ColumnsRefused
from ..processors.processor import BaseProcessor, model_of
from ..wording import counted
from .sources import SourceInfo

SHOWN = 30
CLOSE = 0.6  # of the letters of two names that are taken for the same
DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A field: the columns that it may come from, and whether a record needs one of them."""

    names: tuple[str, ...]
    required: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """What one model takes.

    Attributes:
        name: The model's.
        fields: Its fields.
        extra: What it does with other columns: "ignore", "allow" or "forbid".
        is_sure: Whether nothing changes a record before its fields are read.
    """

    name: str
    fields: tuple[Wanted, ...]
    extra: str
    is_sure: bool

    def missing(self, columns: Iterable[str]) -> list[Wanted]:
        """The fields that a record needs and no column is for."""
        there = set(columns)
        return [one for one in self.fields if one.required and there.isdisjoint(one.names)]

    def unused(self, columns: Iterable[str]) -> list[str]:
        """The columns that no field takes."""
        taken = {name for one in self.fields for name in one.names}
        return [] if self.extra == "allow" else [name for name in columns if name not in taken]


def check_columns(processor: BaseProcessor[Any], info: SourceInfo) -> list[str]:
    """What the owner of a file should know about its columns.

    Raises:
        ColumnsRefused: With these columns no record could fit the processor's model.
    """
    if info.columns is None:
        return []
    notes = list(_alike(info.columns))
    shapes = shapes_of(model_of(type(processor)))
    if not shapes:
        return notes
    wrong = {one.name: (one, one.missing(info.columns), _forbidden(one, info)) for one in shapes}
    shape, missing, forbidden = min(wrong.values(), key=lambda one: len(one[1]) + len(one[2]))
    if missing or forbidden:
        message = _complaint(shape, missing, forbidden, info)
        if all(one.is_sure for one in shapes):
            raise ColumnsRefused(message, **_hints(shape, missing, info))
        notes.append(message)
    unused = [one for one in info.columns if all(one in each.unused([one]) for each in shapes)]
    if unused and not forbidden:
        notes.append(_unused(" or ".join(one.name for one in shapes), shape, unused, info.columns))
    return notes


def _forbidden(shape: Shape, info: SourceInfo) -> list[str]:
    return shape.unused(info.columns or ()) if shape.extra == "forbid" else []


def _complaint(
    shape: Shape, missing: Sequence[Wanted], forbidden: Sequence[str], info: SourceInfo
) -> str:
    columns = info.columns or ()
    parts = []
    if missing:
        needed = ", ".join(" or ".join(map(repr, one.names)) for one in missing)
        parts.append(f"The file has no column {needed}, which {shape.name} requires.")
    if forbidden:
        parts.append(f"{shape.name} takes no column {_listed(forbidden)} (extra is forbidden).")
    parts.append(f"The columns of the file: {_listed(columns)}.")
    wanted = [one.names[0] for one in shape.fields]
    parts.append(f"Those of {shape.name}: {_listed(wanted)}.")
    pairs = _pairs([name for one in missing for name in one.names], shape.unused(columns))
    if pairs:
        parts.append(f"Likeliest: {pairs}.")
    return " ".join(parts)


def _unused(names: str, shape: Shape, unused: Sequence[str], columns: Sequence[str]) -> str:
    count = "column" if len(unused) == 1 else "columns"
    absent = [one for one in shape.fields if set(columns).isdisjoint(one.names)]
    pairs = _pairs([name for one in absent for name in one.names], unused)
    perhaps = f" Perhaps meant: {pairs}." if pairs else ""
    return f"No field of {names} takes the {count} {_listed(unused)}.{perhaps}"


def _hints(shape: Shape, missing: Sequence[Wanted], info: SourceInfo) -> dict[str, str]:
    """What to do about it, in the words of each place."""
    if info.columns and info.columns[0].lstrip().startswith(("{", "[")):
        json = "the file looks like JSON, and was read as CSV because of its name"
        return {
            "hint": f"{json}: pass format='jsonl' (a record on each line) or format='json'.",
            "cli_hint": f"{json}: add --format jsonl (a record on each line) or --format json.",
            "web_hint": f"{json}: set `format` to jsonl (a record on each line) or to json.",
        }
    if missing and (line := _header_line(missing, info.head)):
        above = f"line {line} of the file looks like the header line: delete the lines above it"
        return {"hint": f"{above}."}
    count = len(info.columns or ())
    names = [one.names[0] for one in shape.fields][:count]
    each = f"with a name for each of the {counted(count, 'field')} of a record"
    rename = "rename the columns in the first line of the file"
    return {
        "hint": f"{rename}, or give the fields an alias (pydantic's validation_alias); if the "
        f"first line is a record already, pass columns={names!r} {each}.",
        "cli_hint": f"{rename}; if that line is a record already, pass --columns "
        f"{','.join(names)} {each}.",
        "web_hint": f"{rename}; it must hold the names of the columns.",
    }


def _header_line(missing: Sequence[Wanted], head: Sequence[str]) -> int | None:
    """The line, from 2, that has the names of all columns that are missing."""
    for number, line in enumerate(head[1:], 2):
        for delimiter in DELIMITERS:
            cells = {cell.strip().strip('"') for cell in line.split(delimiter)}
            if all(cells.intersection(one.names) for one in missing):
                return number
    return None


def _pairs(wanted: Sequence[str], there: Sequence[str]) -> str:
    """For each name that is wanted the column that is most like it."""
    known = {_normal(name): name for name in there}
    pairs = []
    for name in wanted:
        found = difflib.get_close_matches(_normal(name), known, n=1, cutoff=CLOSE)
        pairs += [f"{known[one]!a} for {name!r}" for one in found]
    return ", ".join(pairs[:SHOWN])


def _alike(columns: Sequence[str]) -> Iterator[str]:
    """A note on each column that differs from another only in what is easily overlooked."""
    known: dict[str, str] = {}
    for name in columns:
        first = known.setdefault(_normal(name), name)
        if first != name and _normal(name):
            yield (
                f"The columns {first!a} and {name!a} differ only in case, blanks, signs or "
                "invisible characters."
            )


def _normal(name: str) -> str:
    """A name without what is easily overlooked."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(char for char in folded if char.isalnum())


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(_shown(name) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def _shown(name: str) -> str:
    """A name between quotes; what is invisible in it as its number."""
    plain = all(char.isprintable() and not 0x2000 <= ord(char) <= 0x206F for char in name)
    return repr(name) if plain else ascii(name)


def shapes_of(model: Any) -> list[Shape]:
    """What a model takes: one shape, several for a union; none where that is not known."""
    if get_origin(model) is Annotated:
        return shapes_of(get_args(model)[0])
    if get_origin(model) in {Union, types.UnionType}:
        parts = [shapes_of(one) for one in get_args(model)]
        return [shape for part in parts for shape in part] if all(parts) else []
    if not isinstance(model, type):
        return []
    fields = _fields_of(model)
    if fields is None:
        return []
    config: dict[str, Any] = dict(_config_of(model))
    wanted = tuple(
        Wanted(tuple(_names(name, field, config)), field.is_required())
        for name, field in fields.items()
    )
    return [Shape(model.__name__, wanted, config.get("extra") or "ignore", _is_sure(model))]


def _fields_of(model: type[Any]) -> dict[str, FieldInfo] | None:
    """The fields of a model by their names, as pydantic describes them."""
    if issubclass(model, BaseModel):
        return None if issubclass(model, RootModel) else dict(model.model_fields)
    known = getattr(model, "__pydantic_fields__", None)
    if known is not None:  # a pydantic dataclass
        return {name: one for name, one in known.items() if one.init is not False}
    hints = get_type_hints(model, include_extras=True)
    described = any(get_origin(hint) is Annotated for hint in hints.values())  # perhaps by aliases
    if described or not (is_typeddict(model) or dataclasses.is_dataclass(model)):
        return None
    if is_typeddict(model):
        return {name: _field(required=name in model.__required_keys__) for name in hints}
    fields = [one for one in dataclasses.fields(model) if one.init]
    if any(isinstance(one.default, FieldInfo) for one in fields):
        return None
    missing = dataclasses.MISSING
    return {
        one.name: _field(required=one.default is missing and one.default_factory is missing)
        for one in fields
    }


def _field(*, required: bool) -> FieldInfo:
    return FieldInfo() if required else FieldInfo(default=None)


def _config_of(model: type[Any]) -> Any:
    if issubclass(model, BaseModel):
        return model.model_config
    return getattr(model, "__pydantic_config__", None) or {}


def _names(name: str, field: FieldInfo, config: dict[str, Any]) -> Iterator[str]:
    """The columns that a field may come from."""
    alias = field.validation_alias
    by_alias = config.get("validate_by_alias", True) is not False
    if alias is None or config.get("validate_by_name") or config.get("populate_by_name"):
        yield name
    if alias is None or not by_alias:
        return
    for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
        first = choice.path[0] if isinstance(choice, AliasPath) else choice
        if isinstance(first, str) and first != name:
            yield first
        elif first == name:
            yield name


def _is_sure(model: type[Any]) -> bool:
    """Whether nothing of the user's sees a record before its fields are read."""
    decorators = getattr(model, "__pydantic_decorators__", None)
    validators = decorators.model_validators.values() if decorators is not None else ()
    if any(one.info.mode in {"before", "wrap"} for one in validators):
        return False
    if getattr(model, "__pydantic_custom_init__", False):
        return False
    own = getattr(model, "__get_pydantic_core_schema__", None)
    usual = getattr(BaseModel, "__get_pydantic_core_schema__", None)
    return own is None or getattr(own, "__func__", own) is getattr(usual, "__func__", usual)
