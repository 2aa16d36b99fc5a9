"""The command on the test's own database, which has a shop."""

from pathlib import Path

import asyncpg
import pytest

from ..support.command import Command


@pytest.fixture
def bare(bare: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command without a database, and with processors."""
    monkeypatch.setenv("RELIABLE_IMPORTS_PROCESSORS", "tests.cli.processors")
    return bare


@pytest.fixture
def cli(bare: Command, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command on the test's own database."""
    monkeypatch.setenv("RELIABLE_IMPORTS_DATABASE_URL", dsn)
    return bare


@pytest.fixture
async def shop(conn: asyncpg.Connection) -> asyncpg.Connection:
    """The tables that the processors write to."""
    await conn.execute(
        "CREATE TABLE products (sku text PRIMARY KEY);"
        "CREATE TABLE orders (id bigserial PRIMARY KEY, sku text REFERENCES products);"
        "INSERT INTO products VALUES ('a'), ('b')"
    )
    return conn


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """Five orders: two for what is known, one to skip, two for what is not in the shop."""
    file = tmp_path / "orders.csv"
    file.write_text("sku,count\na,1\nb,2\nskip,3\nc,4\nc,5\n")
    return file
