"""What is imported: tables, records, and the SQL that every contender runs."""

import csv
import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parents[1]
YEAR = ROOT.parent / "shared" / "data" / "nycflights13" / "flights.csv.gz"
JANUARY = ROOT / "examples" / "data" / "flights-2013-01.csv.gz"
RUN = 500
AIRPORTS = ROOT / "examples" / "data" / "airports.csv"


class Queries(Protocol):
    """What a contender offers for the business SQL: a connection, or an import context."""

    async def execute(self, sql: str, *args: Any) -> str: ...

    async def fetchrow(self, sql: str, *args: Any) -> Any: ...

    async def fetchval(self, sql: str, *args: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Workload:
    """Records, and the statements that bring one of them in.

    Attributes:
        name: As shown in the table.
        schema: Makes the target tables, empty.
        records: What is imported.
        refused: Whether the target tables refuse one of them.
    """

    name: str
    schema: str
    records: Sequence[dict[str, Any]]
    refused: Callable[[dict[str, Any]], bool] = lambda _record: False

    @property
    def failing(self) -> int:
        """How many of the records are refused."""
        return sum(map(self.refused, self.records))

    def require(self, completed: int, failed: int) -> None:
        """A contender that leaves something out is not faster, but wrong."""
        expected = len(self.records) - self.failing, self.failing
        if (completed, failed) != expected:
            raise RuntimeError(f"{completed} completed and {failed} failed, not {expected}")

    def part(self, share: float) -> "Workload":
        """Its first records."""
        return replace(self, records=self.records[: max(1, round(len(self.records) * share))])

    async def write_many(self, records: Sequence[dict[str, Any]], db: Queries) -> None:
        """The same for many records at once."""
        if self.name.startswith("flights"):
            columns = zip(*map(flight_values, records), strict=True)
            await db.execute(FLIGHTS_TOGETHER, *map(list, columns))
        else:
            emails = [record["email"] for record in records]
            names = [record["name"] for record in records]
            await db.execute(CUSTOMERS_TOGETHER, emails, names)

    async def write(self, record: dict[str, Any], db: Queries) -> None:
        """The business logic, the same for every contender."""
        if self.name.startswith("flights"):
            await db.execute(FLIGHT, *flight_values(record))
        else:
            await write_customer(record, db)


async def write_customer(record: dict[str, Any], db: Queries) -> None:
    """Look a customer up by e-mail; insert or update."""
    existing = await db.fetchrow("SELECT id FROM customers WHERE email = $1", record["email"])
    if existing is None:
        await db.fetchval(
            "INSERT INTO customers (email, name) VALUES ($1, $2) RETURNING id",
            record["email"],
            record["name"],
        )
    else:
        await db.execute(
            "UPDATE customers SET name = $2 WHERE id = $1", existing["id"], record["name"]
        )


CUSTOMERS = """
DROP TABLE IF EXISTS customers;
CREATE TABLE customers (id bigserial PRIMARY KEY, email text NOT NULL UNIQUE, name text NOT NULL);
"""

FLIGHTS = """
DROP TABLE IF EXISTS flights, airports;
CREATE TABLE airports (faa text PRIMARY KEY);
CREATE TABLE flights (
    time_hour timestamptz NOT NULL, carrier text NOT NULL, flight integer NOT NULL,
    origin text NOT NULL REFERENCES airports, dest text NOT NULL REFERENCES airports,
    tailnum text, distance integer NOT NULL,
    PRIMARY KEY (time_hour, carrier, flight, origin));
"""

FLIGHT = """
INSERT INTO flights (time_hour, carrier, flight, origin, dest, tailnum, distance)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""


FLIGHTS_TOGETHER = """
INSERT INTO flights (time_hour, carrier, flight, origin, dest, tailnum, distance)
SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::integer[], $4::text[], $5::text[],
                     $6::text[], $7::integer[])
"""

CUSTOMERS_TOGETHER = """
INSERT INTO customers (email, name)
SELECT * FROM unnest($1::text[], $2::text[])
ON CONFLICT (email) DO UPDATE SET name = EXCLUDED.name
"""


def flight_values(record: dict[str, Any]) -> tuple[Any, ...]:
    """A flight's row from its strings."""
    tailnum = record["tailnum"]
    return (
        datetime.fromisoformat(record["time_hour"]),
        record["carrier"],
        int(record["flight"]),
        record["origin"],
        record["dest"],
        None if tailnum == "NA" else tailnum,
        int(record["distance"]),
    )


def customers(count: int) -> Workload:
    """Clean data: every record is new."""
    records = [{"email": f"c{n}@example.org", "name": f"Customer {n}"} for n in range(count)]
    return Workload("customers", CUSTOMERS, records)


def flights(count: int) -> Workload:
    """Real flights; those to four airports that the reference table lacks are refused.

    Of the whole year, where it is there: runs of consecutive flights, spread evenly over it.
    """
    known = airports()
    with gzip.open(YEAR if YEAR.exists() else JANUARY, "rb") as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline="")))
    runs = -(-count // RUN)
    starts = (len(rows) * number // runs for number in range(runs))
    records = [row for start in starts for row in rows[start : start + RUN]][:count]
    fill = ", ".join(f"('{code}')" for code in sorted(known))
    schema = f"{FLIGHTS}INSERT INTO airports VALUES {fill};"
    return Workload("flights", schema, records, lambda row: row["dest"] not in known)


def wide(count: int) -> Workload:
    """Clean data with four kilobytes a record, of which the business logic needs little."""
    records = [
        {**record, "note": f"{n:08}" * 512} for n, record in enumerate(customers(count).records)
    ]
    return Workload("wide customers", CUSTOMERS, records)


def failing(count: int) -> Workload:
    """Flights to an airport that is not there, every one of them."""
    known = flights(count)
    records = [{**record, "dest": "???"} for record in known.records]
    return replace(known, name="flights, all failing", records=records)


def airports() -> set[str]:
    """The codes of the reference table."""
    with AIRPORTS.open(encoding="utf-8", newline="") as file:
        return {row["faa"] for row in csv.DictReader(file)}


WORKLOADS = {
    "customers": customers,
    "flights": flights,
    "wide customers": wide,
    "flights, all failing": failing,
}
