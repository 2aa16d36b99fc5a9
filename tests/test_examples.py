"""Every example runs and prints the documented output."""

import asyncio
import csv
import gzip
from itertools import islice

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
airports.csv: 1,458 of 1,458 completed, 0 failed.
planes.csv: 3,322 of 3,322 completed, 0 failed.
flights-2013-01.csv.gz: 26,324 of 27,004 completed, 680 failed.
   680  ForeignKeyViolationError 23503 flights_dest_fkey
           486  dest=SJU
            93  dest=BQN
            70  dest=STT
            31  dest=PSE
Four airports are missing. Import them:
missing_airports.csv: 4 of 4 completed, 0 failed.
Reprocessed: 680 of 680 completed; only the failed flights ran again.
Checked: 27,004 flights, all values as in flights-2013-01.csv.gz; sum of distance 27,188,805.
"""


TRIAGE = """\
dry run: 26,324 would complete, 680 would fail
  flights_demo.flights: 26,324 inserted, 0 updated
  tables unchanged: True
add_the_airports: 680 failed, 0 outstanding; 27,004 flights, sum of distance 27,188,805
  the canary has not passed: 0 of 20 items succeeded, 90% must; the rest was not run
try_a_few_first: 680 failed, 0 outstanding; 27,004 flights, sum of distance 27,188,805
  edited 1 and 679 records; the first had BQN before
edit_the_values: 680 failed, 0 outstanding; 27,004 flights, sum of distance 27,188,805
  the file has 680 rows
correct_the_file: 680 failed, 0 outstanding; 27,004 flights, sum of distance 27,188,805
"""


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


@pytest.mark.long
async def test_the_demo_imports_january(dsn: str, conn, capsys) -> None:
    await asyncio.to_thread(uvloop.run, demo.main(dsn))  # as a user runs it

    lines = capsys.readouterr().out.splitlines(keepends=True)
    changing = ("PostgreSQL is ready", "Reading", "Processing", "Batch ", "\n")
    assert "".join(line for line in lines if not line.startswith(changing)) == FLIGHTS
    (batch,) = (line for line in lines if line.startswith("Batch "))
    assert " is partial: 26,324 completed, 680 failed (" in batch
    stored = await conn.fetchrow("SELECT count(*), sum(distance) FROM flights_demo.flights")
    assert tuple(stored) == (27_004, 27_188_805)


@pytest.mark.long
@pytest.mark.timeout(900)  # five imports of all of January
async def test_january_is_repaired_in_four_ways(dsn: str, capsys) -> None:
    await asyncio.to_thread(uvloop.run, triage.main(dsn))
    assert capsys.readouterr().out == TRIAGE


async def test_the_demo_may_be_repeated_with_any_file(dsn: str, conn, capsys, tmp_path) -> None:
    for name, rows in (("first.csv", 100), ("second.csv", 200)):
        with gzip.open(demo.JANUARY, "rt", encoding="utf-8") as january:
            (tmp_path / name).write_text("".join(islice(january, rows + 1)))
        await demo.main(dsn, tmp_path / name)
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
        async with asyncio.timeout(60):
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
