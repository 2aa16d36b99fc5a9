"""Processors that a command line discovers: `--processors tests.support.keyed_processors`."""

from reliable_imports_async import BaseProcessor

RUNNING = """
INSERT INTO reliable_imports.import_batches (id, batch_type, root_batch_id, status, started_at)
SELECT b, $2, b, 'processing', now() FROM (SELECT $1::uuid AS b) one
"""
LEASED = """
INSERT INTO reliable_imports.import_batch_ranges (batch_id, first_item, last_item, state, worker_id, lease_until)
VALUES ($1, 1, 1, 'leased', gen_random_uuid(), now() + interval '1 hour')
"""
HELD = "INSERT INTO reliable_imports.import_only_one VALUES ($2, $1)"


class StockProcessor(BaseProcessor):
    on_duplicate = "skip"
    skip_unchanged = True

    def item_key(self, record):
        return record["sku"]

    async def process_item(self, item, ctx):
        if item.source_data["count"] == "bad":
            raise ValueError("a bad count")


class NightlyProcessor(BaseProcessor):
    only_one = "refuse"

    async def process_item(self, item, ctx):
        return None


class PatientProcessor(BaseProcessor):
    only_one = True

    async def process_item(self, item, ctx):
        return None


async def running(conn, batch_id, batch_type):
    """As if another machine ran a batch: it started, and holds a lease."""
    await conn.execute(RUNNING, batch_id, batch_type)
    await conn.execute(LEASED, batch_id)
    await conn.execute(HELD, batch_id, batch_type)
