"""Endpoints beside processors: registration, and after_batch_complete in whatever process."""

import asyncio

import pytest

from reliable_imports_async import BaseEndpoint, BatchManager, EndpointContext, Visible
from reliable_imports_async.errors import DuplicateBatchType, NotAnEndpoint

from ..processors.reach import Registry
from ..support.trying import LEDGER, insert, processor, records


def endpoint(**hooks):
    return type("TriedEndpoint", (BaseEndpoint,), hooks)


def test_an_endpoint_belongs_to_the_batch_type_of_its_name():
    registry = Registry()
    cls = type("CustomerDataEndpoint", (BaseEndpoint,), {})
    assert registry.register_endpoint(cls) == "customer_data"
    assert isinstance(registry.endpoint("customer_data"), cls)
    assert registry.endpoint("other") is None
    assert [type(one) for one in registry.endpoints] == [cls]
    with pytest.raises(DuplicateBatchType):
        registry.register_endpoint(type("CustomerDataEndpoint", (BaseEndpoint,), {}))


def test_register_takes_endpoints_as_well_by_class_or_as_an_instance():
    registry = Registry()
    cls = type("CustomerDataEndpoint", (BaseEndpoint,), {})
    assert registry.register(cls) == registry.register(cls) == "customer_data"
    assert isinstance(registry.endpoint("customer_data"), cls)
    made = cls()
    assert registry.register(made) == "customer_data"
    assert registry.endpoint("customer_data") is made
    assert registry.batch_types == ()
    with pytest.raises(DuplicateBatchType):
        registry.register(type("CustomerDataEndpoint", (BaseEndpoint,), {}))


@pytest.mark.parametrize("hooks", [None, {"extra_routes": asyncio.sleep}])
def test_what_is_no_endpoint_is_refused(hooks):
    wrong = int if hooks is None else endpoint(**hooks)
    with pytest.raises(NotAnEndpoint):
        Registry().register_endpoint(wrong)


async def finished(manager):
    batch_id = await manager.create_batch("tried", records(3), created_by="ann")
    assert (await manager.process_batch(batch_id)).ok
    return batch_id


@pytest.mark.parametrize("is_async", [False, True])
async def test_it_hears_of_the_end_once(manager, conn, is_async):
    await conn.execute(LEDGER)
    heard = []

    def after_batch_complete(self, batch_id, summary, ctx):
        heard.append((batch_id, summary.completed_items, ctx.user_id, ctx.request, ctx.manager))
        ctx.info("told", who="all")

    async def later(self, batch_id, summary, ctx):
        after_batch_complete(self, batch_id, summary, ctx)

    manager.registry.register(processor(insert))
    hook = later if is_async else after_batch_complete
    manager.registry.register_endpoint(endpoint(after_batch_complete=hook))
    batch_id = await finished(manager)
    await manager.process_batch(batch_id)

    assert heard == [(batch_id, 3, "ann", None, manager)]
    assert "told" in [line.message async for line in manager.get_logs(batch_id)]
    assert await manager.announce_finished() == 0


async def test_an_error_in_it_is_logged_and_undoes_nothing(manager, conn):
    await conn.execute(LEDGER)

    def after_batch_complete(self, batch_id, summary, ctx):
        raise RuntimeError("no mail today")

    manager.registry.register(processor(insert))
    manager.registry.register_endpoint(endpoint(after_batch_complete=after_batch_complete))
    batch_id = await finished(manager)
    lines = [line.message async for line in manager.get_logs(batch_id)]
    assert any("no mail today" in line for line in lines)
    assert await manager.announce_finished() == 0


async def test_another_process_that_knows_the_endpoint_tells_it(manager, dsn, conn):
    await conn.execute(LEDGER)
    heard = []

    def after_batch_complete(self, batch_id, summary, ctx):
        heard.append(batch_id)

    manager.registry.register(processor(insert))
    manager.registry.register_endpoint(endpoint(after_batch_complete=after_batch_complete))
    batch_id = await manager.create_batch("tried", records(3))
    async with BatchManager(dsn) as worker:  # without the endpoint
        worker.registry.register(processor(insert))
        assert (await worker.process_batch(batch_id)).ok
        assert await worker.announce_finished() == 0
    assert heard == []
    assert await manager.announce_finished() == 1
    assert heard == [batch_id]
    assert await manager.announce_finished() == 0


async def test_lists_show_what_is_visible(manager):
    async def process_item(item, ctx): ...

    manager.registry.register(processor(process_item))
    ann = await manager.create_batch("tried", [], created_by="ann", metadata={"tenant": "a"})
    bob = await manager.create_batch(
        "tried", [], created_by="bob", metadata={"tenant": "b", "x": 1}
    )

    async def seen(visible):
        return [batch.id async for batch in manager.list_batches(visible=visible)]

    assert (
        await seen(None)
        == await seen({"other": False})
        == await seen({"tried": True})
        == [bob, ann]
    )
    assert await seen({"tried": Visible(created_by="ann")}) == [ann]
    assert await seen({"tried": Visible(metadata={"tenant": "b"})}) == [bob]
    assert await seen({"tried": Visible(created_by="ann", metadata={"tenant": "b"})}) == []
    assert await seen({"tried": False}) == []
    batch = await manager.get_batch(bob)
    assert Visible(metadata={"tenant": "b"}).shows(batch)
    assert not Visible(created_by="ann").shows(batch)


def test_a_context_needs_only_a_manager():
    ctx = EndpointContext(manager=None)
    ctx.warning("look", at="this")
    assert [line[:2] for line in ctx.log.lines] == [("warning", "look")]
