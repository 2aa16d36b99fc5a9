"""Named SQL statements from the `.sql` files of the rooms; each block has a name and a comment."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

_PACKAGE = resources.files(__package__.rpartition(".")[0])

_NAME = re.compile(r"^-- name: (?P<name>\w+)$", re.MULTILINE)

_CLOCK = re.compile(r"(?<![\w.])(?:now|clock_timestamp)\(\)")
"""Applications put clocks of their own in front of these two, with the `search_path`; our leases,
retries and times must not be set by them."""


@cache
def statements(file: str) -> Mapping[str, str]:
    """The statements of a file by name, in the order of the file.

    Args:
        file: Its room and name: "store/items" is ``store/sql/items.sql``.
    """
    room, name = file.split("/")
    text = _PACKAGE.joinpath(room, "sql", f"{name}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    blocks = zip(parts[::2], parts[1::2], strict=True)
    return MappingProxyType({name: _body(block) for name, block in blocks})


def _body(block: str) -> str:
    lines = [line for line in block.splitlines() if not line.startswith("--")]
    text = "\n".join(lines).strip().removesuffix(";")
    return _CLOCK.sub(r"pg_catalog.\g<0>", text)
