"""Compares the columns of a file with the fields of the processor's model, before any item runs."""

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
SIMILAR = 0.6  # the similarity from which one name may be a misspelling of the other
DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class ModelField:
    """A field of a model.

    Attributes:
        names: The columns that it may be read from.
        required: Whether a record needs one of them.
    """

    names: tuple[str, ...]
    required: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns that a model accepts.

    Attributes:
        name: The model's name.
        fields: Its fields.
        extra: What it does with other columns: "ignore", "allow" or "forbid".
        is_sure: Whether no code of the user changes a record before its fields are read.
    """

    name: str
    fields: tuple[ModelField, ...]
    extra: str
    is_sure: bool

    def missing(self, columns: Iterable[str]) -> list[ModelField]:
        """The required fields for which there is no column."""
        available = set(columns)
        return [
            field for field in self.fields if field.required and available.isdisjoint(field.names)
        ]

    def unused(self, columns: Iterable[str]) -> list[str]:
        """The columns that no field reads."""
        read = {name for field in self.fields for name in field.names}
        return [] if self.extra == "allow" else [name for name in columns if name not in read]


def check_columns(processor: BaseProcessor[Any], info: SourceInfo) -> list[str]:
    """Notes for the user about the columns of a file.

    Raises:
        ColumnsRefused: With these columns, no record could fit the processor's model.
    """
    if info.columns is None:
        return []
    notes = list(_almost_equal(info.columns))
    shapes = shapes_of(model_of(type(processor)))
    if not shapes:
        return notes
    problems = [(shape, shape.missing(info.columns), _forbidden(shape, info)) for shape in shapes]
    best, missing, forbidden = min(problems, key=lambda each: len(each[1]) + len(each[2]))
    if missing or forbidden:
        message = _mismatch(best, missing, forbidden, info)
        if all(shape.is_sure for shape in shapes):
            raise ColumnsRefused(message, **_hints(best, missing, info))
        notes.append(message)
    unused = [column for column in info.columns if all(shape.unused([column]) for shape in shapes)]
    if unused and not forbidden:
        names = " or ".join(shape.name for shape in shapes)
        notes.append(_unused(names, best, unused, info.columns))
    return notes


def shapes_of(model: Any) -> list[Shape]:
    """The columns that a model accepts: several shapes for a union, none if they are unknown."""
    if get_origin(model) is Annotated:
        return shapes_of(get_args(model)[0])
    if get_origin(model) in {Union, types.UnionType}:
        members = [shapes_of(member) for member in get_args(model)]
        return [shape for shapes in members for shape in shapes] if all(members) else []
    if not isinstance(model, type):
        return []
    fields = _fields_of(model)
    if fields is None:
        return []
    config: dict[str, Any] = dict(_config_of(model))
    accepted = tuple(
        ModelField(tuple(_names(name, field, config)), field.is_required())
        for name, field in fields.items()
    )
    return [Shape(model.__name__, accepted, config.get("extra") or "ignore", _is_sure(model))]


def _forbidden(shape: Shape, info: SourceInfo) -> list[str]:
    return shape.unused(info.columns or ()) if shape.extra == "forbid" else []


def _mismatch(
    shape: Shape, missing: Sequence[ModelField], forbidden: Sequence[str], info: SourceInfo
) -> str:
    columns = info.columns or ()
    parts = []
    if missing:
        required = ", ".join(" or ".join(map(repr, field.names)) for field in missing)
        parts.append(f"The file has no column {required}, which {shape.name} requires.")
    if forbidden:
        noun = "column" if len(forbidden) == 1 else "columns"
        parts.append(f"{shape.name} forbids the {noun} {_listed(forbidden)} (extra='forbid').")
    parts.append(f"The columns of the file: {_listed(columns)}.")
    parts.append(
        f"The fields of {shape.name}: {_listed([field.names[0] for field in shape.fields])}."
    )
    return " ".join(parts) + _similar(missing, shape.unused(columns))


def _unused(names: str, shape: Shape, unused: Sequence[str], columns: Sequence[str]) -> str:
    noun = "column" if len(unused) == 1 else "columns"
    absent = [field for field in shape.fields if set(columns).isdisjoint(field.names)]
    return f"No field of {names} reads the {noun} {_listed(unused)}.{_similar(absent, unused)}"


def _similar(fields: Sequence[ModelField], columns: Sequence[str]) -> str:
    """A sentence that names the most similar column for each field."""
    known = {_normal(column): column for column in columns}
    pairs = [
        f"{known[match]!a} for {name!r}"
        for field in fields
        for name in field.names
        for match in difflib.get_close_matches(_normal(name), known, n=1, cutoff=SIMILAR)
    ]
    return f" Similar names: {', '.join(pairs[:SHOWN])}." if pairs else ""


def _hints(shape: Shape, missing: Sequence[ModelField], info: SourceInfo) -> dict[str, str]:
    """What to do about columns that do not fit, for each surface."""
    if info.columns and info.columns[0].lstrip().startswith(("{", "[")):
        json = "the file looks like JSON, but was read as CSV because of its name"
        return {
            "hint": f"{json}: pass format='jsonl' (a record on each line) or format='json'.",
            "cli_hint": f"{json}: add --format jsonl (a record on each line) or --format json.",
            "web_hint": f"{json}: set `format` to jsonl (a record on each line) or to json.",
        }
    if missing and (line := _header_line(missing, info.head)):
        found = f"line {line} of the file looks like the header line"
        return {
            "hint": f"{found}: pass header_row={line}.",
            "cli_hint": f"{found}: add --header-row {line}.",
            "web_hint": f"{found}: set `header_row` to {line}.",
        }
    count = len(info.columns or ())
    names = [field.names[0] for field in shape.fields][:count]
    each = f"with a name for each of the {counted(count, 'field')} of a record"
    rename = "rename the columns in the first line of the file"
    return {
        "hint": f"{rename}, or give the fields an alias (pydantic's validation_alias); if the file "
        f"has no header line, pass columns={names!r} {each}.",
        "cli_hint": f"{rename}; if the file has no header line, use --columns "
        f"{','.join(names)} {each}.",
        "web_hint": f"{rename}, which must contain the column names.",
    }


def _header_line(missing: Sequence[ModelField], head: Sequence[str]) -> int | None:
    """The number (from 2) of the line that contains the names of all missing columns."""
    for number, line in enumerate(head[1:], 2):
        for delimiter in DELIMITERS:
            values = {value.strip().strip('"') for value in line.split(delimiter)}
            if all(values.intersection(field.names) for field in missing):
                return number
    return None


def _almost_equal(columns: Sequence[str]) -> Iterator[str]:
    """A note on each column whose name is easily mistaken for another column's."""
    known: dict[str, str] = {}
    for name in columns:
        first = known.setdefault(_normal(name), name)
        if first != name and _normal(name):
            yield (
                f"The columns {first!a} and {name!a} differ only in case, spaces, punctuation or "
                "invisible characters."
            )


def _normal(name: str) -> str:
    """A name reduced to its letters and digits, without case."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(char for char in folded if char.isalnum())


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(_shown(name) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def _shown(name: str) -> str:
    """A name in quotes; invisible characters are escaped."""
    plain = all(char.isprintable() and not 0x2000 <= ord(char) <= 0x206F for char in name)
    return repr(name) if plain else ascii(name)


def _fields_of(model: type[Any]) -> dict[str, FieldInfo] | None:
    """The fields of a model by name, as pydantic describes them; None if they are unknown."""
    if issubclass(model, BaseModel):
        return None if issubclass(model, RootModel) else dict(model.model_fields)
    known = getattr(model, "__pydantic_fields__", None)
    if known is not None:  # a pydantic dataclass
        return {name: field for name, field in known.items() if field.init is not False}
    hints = get_type_hints(model, include_extras=True)
    annotated = any(get_origin(hint) is Annotated for hint in hints.values())  # maybe with aliases
    if annotated or not (is_typeddict(model) or dataclasses.is_dataclass(model)):
        return None
    if is_typeddict(model):
        return {name: _field(required=name in model.__required_keys__) for name in hints}
    fields = [field for field in dataclasses.fields(model) if field.init]
    if any(isinstance(field.default, FieldInfo) for field in fields):
        return None
    missing = dataclasses.MISSING
    return {
        field.name: _field(required=field.default is missing and field.default_factory is missing)
        for field in fields
    }


def _field(*, required: bool) -> FieldInfo:
    return FieldInfo() if required else FieldInfo(default=None)


def _config_of(model: type[Any]) -> Any:
    if issubclass(model, BaseModel):
        return model.model_config
    return getattr(model, "__pydantic_config__", None) or {}


def _names(name: str, field: FieldInfo, config: dict[str, Any]) -> Iterator[str]:
    """The columns that a field may be read from."""
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
    """Whether no code of the user sees a record before its fields are read."""
    decorators = getattr(model, "__pydantic_decorators__", None)
    validators = decorators.model_validators.values() if decorators is not None else ()
    if any(validator.info.mode in {"before", "wrap"} for validator in validators):
        return False
    if getattr(model, "__pydantic_custom_init__", False):
        return False
    own = getattr(model, "__get_pydantic_core_schema__", None)
    usual = getattr(BaseModel, "__get_pydantic_core_schema__", None)
    return own is None or getattr(own, "__func__", own) is getattr(usual, "__func__", usual)
