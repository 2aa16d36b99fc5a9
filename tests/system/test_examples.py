"""Every example runs and prints the documented output."""

import asyncio
import csv
import gzip
import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import asyncpg
import httpx
import pytest
import uvloop
from examples import (
    api_example,
    categories_example,
    customer_import_example,
    products_csv_example,
)
from examples.flights import check, demo, triage

from reliable_imports_async import BatchManager

from ..support.trying import PATIENCE

CUSTOMERS = """\
3 completed, 2 failed
2 failed: validate_item returned False. - items 3 5
reprocessed: 1 completed, 1 failed
"""

CATEGORIES = """\
4 of 5 categories imported
1 failed, missing parent=garden
"""

PRODUCTS = """\
4 of 5 products imported
1 failed: price: Input should be a valid decimal - items 3
"""

FLIGHTS = """\
airlines.csv: 16 of 16 completed, 0 failed.
airports.csv: {airports:,} of {airports:,} completed, 0 failed.
planes.csv: {planes:,} of {planes:,} completed, 0 failed.
{name}: {good:,} of {all:,} completed, {bad} failed.
{bad:>6}  ForeignKeyViolationError 23503 flights_dest_fkey
{SJU:>14}  dest=SJU
{BQN:>14}  dest=BQN
{STT:>14}  dest=STT
{PSE:>14}  dest=PSE
Four airports are missing. Import them:
missing_airports.csv: 4 of 4 completed, 0 failed.
Reprocessed: {bad} of {bad} completed; only the failed flights ran again.
Checked: {all:,} flights, all values as in {name}; sum of distance {distance:,}.
"""

TRIAGE = """\
dry run: {good:,} would complete, {bad} would fail
  flights_demo.flights: {good:,} inserted, 0 updated
  tables unchanged: True
add_the_airports: {bad} failed, 0 outstanding; {all:,} flights, sum of distance {distance:,}
  the canary has not passed: 0 of 20 items succeeded, and 90% must; the other items were not run
try_a_few_first: {bad} failed, 0 outstanding; {all:,} flights, sum of distance {distance:,}
  edited 1 and {others} records; the first had BQN before
edit_the_values: {bad} failed, 0 outstanding; {all:,} flights, sum of distance {distance:,}
  the file has {bad} rows
correct_the_file: {bad} failed, 0 outstanding; {all:,} flights, sum of distance {distance:,}
"""


@dataclass(frozen=True)
class Flights:
    """The first flights of January, and what their import comes to."""

    count: int
    distance: int
    missing: dict[str, int]
    airports: int
    planes: int

    @property
    def is_january(self) -> bool:
        return self == JANUARY

    def prints(self, text: str) -> str:
        bad = sum(self.missing.values())
        name = demo.JANUARY.name if self.is_january else "first.csv"
        return text.format(
            name=name, all=self.count, good=self.count - bad, bad=bad, others=bad - 1,
            distance=self.distance, airports=self.airports, planes=self.planes, **self.missing,
        )  # fmt: skip


JANUARY = Flights(27_004, 27_188_805, {"SJU": 486, "BQN": 93, "STT": 70, "PSE": 31}, 1_458, 3_322)
FIRST = Flights(1_000, 1_083_069, {"SJU": 25, "BQN": 4, "STT": 3, "PSE": 1}, 86, 50)


def first_flights(count: int) -> list[str]:
    """So many lines of January, and the line before them that names the columns."""
    with gzip.open(demo.JANUARY, "rt", encoding="utf-8") as january:
        return list(islice(january, count + 1))


@pytest.fixture
def little(tmp_path: Path, monkeypatch) -> Path:
    """The data of the examples, without what the first flights do not need."""
    for name in ("airlines.csv", "missing_airports.csv"):
        shutil.copy(demo.DATA / name, tmp_path)
    flights = first_flights(FIRST.count)
    (tmp_path / "first.csv").write_text("".join(flights), encoding="utf-8")
    used = {row[place] for row in csv.DictReader(flights) for place in ("origin", "dest")}
    header, *airports = (demo.DATA / "airports.csv").read_text(encoding="utf-8").splitlines(True)
    needed = [line for line in airports if line.partition(",")[0] in used]
    (tmp_path / "airports.csv").write_text("".join([header, *needed]), encoding="utf-8")
    planes = (demo.DATA / "planes.csv").read_text(encoding="utf-8").splitlines(True)
    (tmp_path / "planes.csv").write_text("".join(planes[: FIRST.planes + 1]), encoding="utf-8")
    for example in (demo, triage):
        monkeypatch.setattr(example, "DATA", tmp_path)
    return tmp_path


@pytest.fixture(params=[FIRST, pytest.param(JANUARY, marks=pytest.mark.long)], ids=["first", "all"])
def flights(request: pytest.FixtureRequest, monkeypatch) -> Flights:
    """Flights that the examples find where January is."""
    if not request.param.is_january:
        directory = request.getfixturevalue("little")
        monkeypatch.setattr(triage, "JANUARY", directory / "first.csv")
    return request.param


async def test_customers_are_imported_corrected_and_reprocessed(dsn: str, conn, capsys) -> None:
    await customer_import_example.main(dsn)
    assert capsys.readouterr().out == CUSTOMERS
    first = await conn.fetch("SELECT id, email, name FROM customers ORDER BY email")
    assert [row["name"] for row in first] == ["Ada", "Alan", "Edsger", "Grace"]

    await customer_import_example.main(dsn)  # again: the same customers are updated
    assert capsys.readouterr().out == CUSTOMERS
    assert await conn.fetch("SELECT id, email, name FROM customers ORDER BY email") == first


async def test_products_are_imported_from_csv(dsn: str, conn, capsys) -> None:
    for _ in range(2):
        await products_csv_example.main(dsn)
        assert capsys.readouterr().out == PRODUCTS
    rows = await conn.fetch("SELECT sku, price::text, stock FROM products ORDER BY sku")
    assert [tuple(row) for row in rows] == [
        ("A-100", "7.50", 120),
        ("A-200", "24.90", 35),
        ("A-400", "18.00", None),
        ("A-500", "9.90", 64),
    ]


async def test_categories_come_in_any_order(dsn: str, conn, capsys) -> None:
    for _ in range(2):
        await categories_example.main(dsn)
        assert capsys.readouterr().out == CATEGORIES
    assert await conn.fetchval("SELECT count(*) FROM categories") == 4


async def test_the_demo(dsn: str, conn, capsys, flights: Flights) -> None:
    await asyncio.to_thread(uvloop.run, demo.main(dsn, triage.JANUARY))  # as a user runs it

    lines = capsys.readouterr().out.splitlines(keepends=True)
    changing = ("PostgreSQL is ready", "Reading", "Processing", "Batch ", "\n")
    printed = "".join(line for line in lines if not line.startswith(changing))
    assert printed == flights.prints(FLIGHTS)
    (batch,) = (line for line in lines if line.startswith("Batch "))
    assert flights.prints(" is partial: {good:,} completed, {bad} failed (") in batch
    stored = await conn.fetchrow("SELECT count(*), sum(distance) FROM flights_demo.flights")
    assert tuple(stored) == (flights.count, flights.distance)


@pytest.mark.timeout(900)  # five imports of all of January
async def test_flights_are_repaired_in_four_ways(dsn: str, capsys, flights: Flights) -> None:
    await asyncio.to_thread(uvloop.run, triage.main(dsn))
    assert capsys.readouterr().out == flights.prints(TRIAGE)


async def test_the_demo_may_be_repeated_with_any_file(dsn: str, conn, capsys, little: Path) -> None:
    for name, rows in (("one.csv", 100), ("another.csv", 200)):
        (little / name).write_text("".join(first_flights(rows)), encoding="utf-8")
        await demo.main(dsn, little / name)
        assert f"Checked: {rows} flights, all values as in {name}" in capsys.readouterr().out
    assert await conn.fetchval("SELECT count(*) FROM flights_demo.flights") == 200


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        ("DELETE FROM flights WHERE flight = 5", "1 flights instead of 2"),
        ("UPDATE flights SET tailnum = 'N1' WHERE flight = 5", r"such as 5\|NA\|100"),
    ],
)
async def test_the_check_notices_every_difference(
    empty_dsn: str, tmp_path, harm: str, complaint: str
) -> None:
    file = tmp_path / "flights.csv"
    file.write_text(
        "flight,tailnum,distance,time_hour\n"
        "5,NA,100,2013-01-01T10:00:00Z\n"
        "6,N14228,200,2013-01-01T11:00:00Z\n"
    )
    connection = await asyncpg.connect(empty_dsn)
    try:
        await connection.execute(
            "CREATE SCHEMA flights_demo; SET search_path = flights_demo;"
            "CREATE TABLE flights (flight int, tailnum text, distance int, time_hour timestamptz);"
            "INSERT INTO flights VALUES (5, NULL, 100, '2013-01-01 10:00Z'),"
            " (6, 'N14228', 200, '2013-01-01 11:00Z')"
        )
        same = await check.compare(connection, file)
        assert same == "2 flights, all values as in flights.csv; sum of distance 300"
        await connection.execute(harm)
        with pytest.raises(SystemExit, match=complaint):
            await check.compare(connection, file)
    finally:
        await connection.close()


async def test_the_api_has_a_quota_and_tells_of_the_end(dsn: str) -> None:
    api = api_example.api(dsn)
    transport = httpx.ASGITransport(api.app)
    async with (
        api.running(allow_anonymous=True),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        contact = {"email": "ada@example.org", "name": "Ada"}
        body = {"batch_type": "contact", "items": [contact], "process": "wait"}
        assert (await client.post("/api/batches", json=body)).json()["ok"]
        endpoint = api.manager.registry.endpoint("contact")
        async with asyncio.timeout(PATIENCE):
            while not endpoint.notifications:
                await asyncio.sleep(0.01)
        assert endpoint.notifications == ["1 of 1 contacts are imported"]
        too_many = body | {"items": [contact] * (api_example.QUOTA + 1)}
        refused = await client.post("/api/batches", json=too_many)
        assert (refused.status_code, refused.json()["detail"]) == (
            422,
            "You have 0 pending items; at most 1000 are allowed.",
        )


async def test_the_flights_can_be_imported_as_sets(dsn: str, conn) -> None:
    await conn.execute(demo.SCHEMA.read_text(encoding="utf-8"))
    with gzip.open(demo.JANUARY, "rt", encoding="utf-8", newline="") as file:
        flights = [row for _, row in zip(range(2_000), csv.DictReader(file), strict=False)]
    async with BatchManager(dsn) as manager:
        manager.registry.discover("examples.flights.processors")
        manager.registry.discover("examples.flights.sets")
        for batch_type in ("airline", "airport"):
            await manager.import_file(demo.DATA / f"{batch_type}s.csv", batch_type)
        batch_id = await manager.create_batch("flight_set", flights)
        summary = await manager.process_batch(batch_id)
        (group,) = await manager.failure_groups(batch_id)
    assert (group.constraint, group.count) == ("flights_dest_fkey", summary.failed_items)
    missing = {value for value, _ in group.values}
    assert missing == {"dest=BQN", "dest=PSE", "dest=SJU", "dest=STT"}
    failed = sum(f"dest={flight['dest']}" in missing for flight in flights)
    assert summary.failed_items == failed
    stored = await conn.fetchval("SELECT count(*) FROM flights_demo.flights")
    assert stored == summary.completed_items == 2_000 - failed
