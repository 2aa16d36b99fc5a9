"""Processors without a method: model, table and key say it all, and items are upserted as sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json, to_jsonable_python

from .context import ImportContext
from .errors import ConfigurationError
from .guarded import Connection
from .models import ImportBatchItem
from .processors import BaseProcessor, fields_of
from .store import tables
from .upsert import Column, upsert_many_statement


@dataclass(frozen=True, slots=True)
class Upsert:
    """How the items of one processor get into its table."""

    table: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    async def write(
        self, items: Sequence[ImportBatchItem[Any]], ctx: ImportContext
    ) -> list[dict[str, Any]]:
        """Insert or update the rows of some items; what `process_items` returns.

        Two items with the same key cannot be in one statement: the second waits for the next.
        """
        rows = [self._row(item.data) for item in items]
        keys = [tuple(str(row[name]) for name in self.key) for row in rows]
        sql = upsert_many_statement(self.table, self.columns, self.key)
        left = list(zip(keys, rows, strict=True))
        while left:
            wave: dict[tuple[str, ...], dict[str, Any]] = {}
            behind = []
            for key, row in left:
                if key in wave:
                    behind.append((key, row))
                else:
                    wave[key] = row
            in_key_order = [wave[key] for key in sorted(wave)]  # as others lock them
            await ctx.execute(sql, to_json(in_key_order, inf_nan_mode="strings").decode())
            left = behind
        return [{"target_table": self.table, "target_id": ",".join(key)} for key in keys]

    def _row(self, data: Any) -> dict[str, Any]:
        """An item's values by column, ready for JSON."""
        values = data if isinstance(data, Mapping) else vars(data)
        return {
            column.name: to_jsonable_python(
                values.get(column.name), inf_nan_mode="strings", bytes_mode="hex"
            )
            for column in self.columns
        }


async def declared_upsert(conn: Connection, processor: BaseProcessor[Any]) -> Upsert:
    """What a processor declares, checked against the table.

    Raises:
        ConfigurationError: The table, a column or the unique constraint is not there.
    """
    table, key, fields = processor.table, processor.key, fields_of(type(processor))
    found = {column.name: column for column in await tables.columns(conn, table)}
    if not found:
        raise ConfigurationError(
            f"There is no table {table} to upsert into.",
            hint="create it before the batch starts, or in on_batch_start.",
        )
    missing = [name for name in fields if name not in found]
    if missing:
        raise ConfigurationError(
            f"Table {table} has no column {', '.join(missing)}.",
            hint=f"its columns are {', '.join(found)}; the model's fields must be among them.",
        )
    if not await tables.is_unique(conn, table, key):
        raise ConfigurationError(
            f"Table {table} has no unique constraint on ({', '.join(key)}).",
            hint=f"ALTER TABLE {table} ADD UNIQUE ({', '.join(key)}).",
        )
    return Upsert(table, tuple(key), tuple(found[name] for name in fields))
