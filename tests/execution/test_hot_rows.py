"""Items that update a few rows that all share: they conflict, and all complete."""

import random

import pytest

from reliable_imports_async import BatchManager

from ..support.trying import MODES, processor, records

ACCOUNTS = """
CREATE TABLE accounts (id integer PRIMARY KEY, balance integer NOT NULL DEFAULT 0);
INSERT INTO accounts SELECT generate_series(0, 4);
CREATE TABLE ledger (n integer);
"""
ITEMS = 400


@pytest.mark.parametrize("mode", MODES)
async def test_conflicting_items_complete_with_few_repetitions(dsn, conn, mode):
    """With all slots at work, each item would deadlock many times."""
    await conn.execute(ACCOUNTS)
    rows, tries = random.Random(7), []

    async def process_item(item, ctx):
        tries.append(item.item_number)
        payer, payee = rows.sample(range(5), 2)
        await ctx.execute("INSERT INTO ledger VALUES ($1)", item.item_number)
        await ctx.execute("UPDATE accounts SET balance = balance - 1 WHERE id = $1", payer)
        await ctx.execute("UPDATE accounts SET balance = balance + 1 WHERE id = $1", payee)

    async def process_items(items, ctx):
        for item in items:
            await process_item(item, ctx)

    async with BatchManager(dsn, concurrency=16) as manager:
        tried = processor(process_item, **MODES[mode])
        if mode == "set":
            tried.process_items = staticmethod(process_items)
            del tried.process_item
        manager.registry.register(tried)
        summary = await manager.process_batch(await manager.create_batch("tried", records(ITEMS)))

    assert summary.completed_items == ITEMS
    assert await conn.fetchval("SELECT count(DISTINCT n) FROM ledger") == ITEMS
    assert await conn.fetchval("SELECT count(*) FROM ledger") == ITEMS
    assert await conn.fetchval("SELECT sum(balance) FROM accounts") == 0
    assert len(tries) < 1.5 * ITEMS
