"""Import flights with `process_items`: one statement writes many flights."""

from collections.abc import Sequence

from reliable_imports_async import BaseProcessor, ImportBatchItem, ImportContext

from .processors import Flight

INSERT_FLIGHTS = """
INSERT INTO flights_demo.flights
SELECT * FROM jsonb_populate_recordset(NULL::flights_demo.flights, $1::text::jsonb)
"""


class FlightSetProcessor(BaseProcessor[Flight]):  # -> batch type "flight_set"
    null_values = ("NA",)

    async def process_items(
        self, items: Sequence[ImportBatchItem[Flight]], ctx: ImportContext
    ) -> None:
        rows = ",".join(item.data.model_dump_json() for item in items)
        await ctx.execute(INSERT_FLIGHTS, f"[{rows}]")
