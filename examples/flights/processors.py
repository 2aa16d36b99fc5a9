"""One model and one processor for each table. The models' fields are the columns of the files."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from reliable_imports_async import BaseProcessor, ImportBatchItem, ImportContext


class Airline(BaseModel):
    carrier: str
    name: str


class Airport(BaseModel):
    faa: str
    name: str
    lat: float
    lon: float
    alt: int
    tz: int
    dst: str
    tzone: str | None


class Plane(BaseModel):
    tailnum: str
    year: int | None
    type: str
    manufacturer: str
    model: str
    engines: int
    seats: int
    speed: int | None
    engine: str


class Flight(BaseModel):
    year: int
    month: int
    day: int
    dep_time: int | None
    sched_dep_time: int
    dep_delay: int | None
    arr_time: int | None
    sched_arr_time: int
    arr_delay: int | None
    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    air_time: int | None
    distance: int
    hour: int
    minute: int
    time_hour: datetime


INSERT_AIRLINE = "INSERT INTO flights_demo.airlines (carrier, name) VALUES ($1, $2)"

INSERT_AIRPORT = """
INSERT INTO flights_demo.airports (faa, name, lat, lon, alt, tz, dst, tzone)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""

INSERT_PLANE = """
INSERT INTO flights_demo.planes
    (tailnum, year, type, manufacturer, model, engines, seats, speed, engine)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""

INSERT_FLIGHT = """
INSERT INTO flights_demo.flights
    (year, month, day, dep_time, sched_dep_time, dep_delay, arr_time, sched_arr_time, arr_delay,
     carrier, flight, tailnum, origin, dest, air_time, distance, hour, minute, time_hour)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
"""


class AirlineProcessor(BaseProcessor[Airline]):  # -> batch type "airline"
    async def process_item(
        self, item: ImportBatchItem[Airline], ctx: ImportContext
    ) -> dict[str, Any]:
        await ctx.execute(INSERT_AIRLINE, *_values(item.data))
        return {"target_table": "flights_demo.airlines", "target_id": item.data.carrier}


class AirportProcessor(BaseProcessor[Airport]):
    null_values = ("NA",)  # the model reads these strings as None

    async def process_item(
        self, item: ImportBatchItem[Airport], ctx: ImportContext
    ) -> dict[str, Any]:
        await ctx.execute(INSERT_AIRPORT, *_values(item.data))
        return {"target_table": "flights_demo.airports", "target_id": item.data.faa}


class PlaneProcessor(BaseProcessor[Plane]):
    null_values = ("NA",)

    async def process_item(
        self, item: ImportBatchItem[Plane], ctx: ImportContext
    ) -> dict[str, Any]:
        await ctx.execute(INSERT_PLANE, *_values(item.data))
        return {"target_table": "flights_demo.planes", "target_id": item.data.tailnum}


class FlightProcessor(BaseProcessor[Flight]):
    null_values = ("NA",)

    async def process_item(self, item: ImportBatchItem[Flight], ctx: ImportContext) -> None:
        await ctx.execute(INSERT_FLIGHT, *_values(item.data))


def _values(model: BaseModel) -> tuple[Any, ...]:
    """Return the values of a model's fields, in the order of their declaration."""
    return tuple(getattr(model, name) for name in type(model).model_fields)
