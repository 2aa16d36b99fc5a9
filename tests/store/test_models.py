"""What the database says, as JSON."""

import json
from base64 import b64decode

from pydantic import BaseModel

from reliable_imports_async import BaseProcessor


class Order(BaseModel):
    sku: str
    total: int


class OrderProcessor(BaseProcessor[Order]):
    async def process_item(self, item, ctx):
        ctx.info("seen", total=item.data.total)


async def test_batches_items_and_log_lines_are_json_ready(manager):
    manager.registry.register(OrderProcessor)
    records = [{"sku": "a", "total": 1}, {"sku": "b", "total": "x"}, {"sku": float("nan")}]
    batch_id = await manager.create_batch("order", records, metadata={"tags": ["n", {"k": 1}]})
    await manager.process_batch(batch_id)
    batch = json.loads(json.dumps((await manager.get_batch(batch_id)).as_dict()))
    assert (batch["id"], batch["metadata"]) == (str(batch_id), {"tags": ["n", {"k": 1}]})
    assert batch["status"] == "partial"
    items = [item.as_dict() async for item in manager.list_items(batch_id)]
    good, bad, unreadable = json.loads(json.dumps(items))
    assert (good["source_data"], good["failure"]) == ({"sku": "a", "total": 1}, None)
    assert good["idempotency_key"] == f"{batch_id}:1"
    assert (bad["failure"]["kind"], bad["failure"]["fields"][0]["loc"]) == ("validation", "total")
    assert b64decode(unreadable["raw_base64"]) == b'{"sku":NaN}'
    assert not {"data", "prepared", "raw"} & set(good)
    lines = [line.as_dict() async for line in manager.get_logs(batch_id, item_number=1)]
    assert json.loads(json.dumps(lines))[0]["details"] == {"total": 1}
    groups = [group.as_dict() for group in await manager.failure_groups(batch_id)]
    assert sum(group["count"] for group in json.loads(json.dumps(groups))) == 2
