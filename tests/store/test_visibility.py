"""One rule of who may see which batch: the same in SQL and in Python, on every path."""

import json
import random
from types import MappingProxyType
from uuid import uuid4

import pytest

from reliable_imports_async import ImportBatch, Visible
from reliable_imports_async.models import BatchStatus

from ..support.trying import processor
from .reach import Visibility

BATCH = dict.fromkeys(ImportBatch.__dataclass_fields__)
PAIRS = 3_000
LEAVES = (
    None, True, False, 0, 1, -1, 1.0, 0.1, -0.0, 1e22, 1e23, 2**53 + 1, 10**40, 1e-7, "", "1", "a", "A", "ä", "null",
    "\x00", '"', [], {}, [[]], {"": None},
)  # fmt: skip


async def quiet(item, ctx): ...


def root(metadata, created_by="ann", batch_type="tried"):
    return ImportBatch(
        **BATCH
        | {
            "id": uuid4(),
            "batch_type": batch_type,
            "status": BatchStatus.PENDING,
            "created_by": created_by,
            "metadata": MappingProxyType(metadata),
        }
    )


def some_json(rng, depth):
    kind = rng.random()
    if depth == 0 or kind < 0.4:
        return rng.choice(LEAVES)
    size = rng.randrange(4)
    if kind < 0.7:
        return [some_json(rng, depth - 1) for _ in range(size)]
    return {rng.choice("abc"): some_json(rng, depth - 1) for _ in range(size)}


def part_of(rng, value):
    """Often contained in a value, often nearly."""
    if rng.random() < 0.1:
        return some_json(rng, 1)
    if isinstance(value, dict):
        return {name: part_of(rng, one) for name, one in value.items() if rng.random() < 0.7}
    if isinstance(value, list):
        kept = [part_of(rng, one) for one in value if rng.random() < 0.7]
        rng.shuffle(kept)
        return kept + kept[:1] * rng.randrange(2)
    return rng.choice([1, 1.0, True]) if value in (0, 1) and rng.random() < 0.5 else value


async def test_python_and_postgresql_agree_on_what_metadata_contain(conn):
    rng = random.Random(12)
    stored, rules, expected = [], [], []
    for _ in range(PAIRS):
        metadata = {name: some_json(rng, 3) for name in "abc"}
        text = json.dumps(metadata).replace("\\u0000", "\\\\x00")  # as loading stores it
        kept = {name: part_of(rng, one) for name, one in metadata.items() if rng.random() < 0.6}
        visible = Visible(metadata=kept)
        stored.append(text)
        rules.append(Visibility({"tried": visible}, Visible()).as_json())
    rows = await conn.fetch(
        """SELECT n, m::jsonb::text AS metadata, reliable_imports.is_visible(r::jsonb, 'tried', 'ann', m::jsonb) AS shown
             FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS t (m, r, n) ORDER BY n""",
        stored,
        rules,
    )
    for row, rule in zip(rows, rules, strict=True):
        wanted = json.loads(rule)["types"]["tried"]["metadata"]
        seen = Visible(metadata=wanted).shows(root(json.loads(row["metadata"])))
        expected.append(seen)
        assert seen == row["shown"], (row["metadata"], wanted)
    assert 0.1 < sum(expected) / PAIRS < 0.9


RULES = [
    (Visible.all(), True),
    (Visible(), False),
    (Visible(created_by=None), False),
    (Visible(metadata=None), False),
    (Visible(created_by=None, metadata={}), False),
    (Visible(created_by="ann", metadata=None), False),
    (Visible(everything=True, created_by=None), False),
    (Visible(metadata={}), True),
    (Visible(created_by="ann"), True),
    (Visible(created_by="Ann"), False),
    (Visible(created_by=""), False),
    (Visible(created_by="ann", metadata={"tenant": {"id": 1}}), True),
    (Visible(created_by="bob", metadata={"tenant": {"id": 1}}), False),
    (Visible(metadata={"tenant": {"id": True}}), False),
    (Visible(metadata={"tenant": None}), False),
    (Visible(metadata={"nothing": None}), False),
]


@pytest.mark.parametrize(("visible", "shown"), RULES)
async def test_a_rule_is_the_same_in_a_list_and_for_one_batch(manager, visible, shown):
    manager.registry.register(processor(quiet))
    metadata = {"tenant": {"id": 1, "plan": "gold"}}
    batch_id = await manager.create_batch("tried", [], created_by="ann", metadata=metadata)
    for given in (
        {"tried": visible},
        Visibility({"tried": visible}, Visible.all()),
        Visibility({"other": Visible.all()}, visible),
    ):
        listed = [one.id async for one in manager.list_batches(visible=given)]
        assert listed == ([batch_id] if shown else [])
    assert visible.shows(await manager.get_batch(batch_id)) is shown


@pytest.mark.parametrize("created_by", [None, "", "ann"])
async def test_nobody_is_nobody(manager, created_by):
    """Who is anonymous sees nothing by `created_by`, not even what nobody has created."""
    manager.registry.register(processor(quiet))
    await manager.create_batch("tried", [], created_by=created_by)
    assert [
        one async for one in manager.list_batches(visible={"tried": Visible(created_by=None)})
    ] == []


@pytest.mark.parametrize("answer", [{"created_by": "ann"}, "ann", 1, [True], Visible])
def test_a_hook_that_answers_anything_else_shows_nothing(answer):
    with pytest.raises(TypeError, match="True, False or Visible"):
        Visible.of(answer)


@pytest.mark.parametrize(
    "given", [{"created_by": 7}, {"metadata": "x"}, {"metadata": {"a": object()}}]
)
def test_a_condition_that_could_not_be_compared_is_refused(given):
    with pytest.raises(TypeError):
        Visible(**given)
    assert Visible.of(None) == Visible.of(False) == Visible()


async def test_reprocessings_are_seen_with_their_root(manager):
    async def process_item(item, ctx):
        raise ValueError("no")

    manager.registry.register(processor(process_item))
    batch_id = await manager.create_batch("tried", [{}], created_by="ann", metadata={"a": 1})
    await manager.process_batch(batch_id)
    child = await manager.create_reprocessing(batch_id, actor="support")
    await manager.process_batch(child)
    for visible, shown in (
        (Visible(created_by="ann"), [child, batch_id]),
        (Visible(metadata={"a": 1}), [child, batch_id]),
        (Visible(created_by="support"), []),
    ):
        given = Visibility.of({"tried": visible})
        assert [one.id async for one in manager.list_batches(visible=given)] == shown
        assert await manager.visible_among([batch_id, child], given) == set(shown)
        measured = await manager.measure([1.0], visible=given)
        assert sum(measured.batches.values()) == len(shown)
        assert sum(measured.items.values()) == len(shown)
        assert bool(measured.durations) == bool(shown)
        minutes = await manager.throughput(visible=given)
        assert round(sum(one.settled for one in minutes)) == len(shown)
        groups = await manager.failure_groups(child, visible=given)
        assert [one.seen_before for one in groups] == [0]
    later = await manager.create_batch("tried", [{}], created_by="bob")
    await manager.process_batch(later)
    for visible, times in ((Visible(created_by="bob"), 0), (Visible.all(), 2)):
        (group,) = await manager.failure_groups(later, visible=Visibility.of({"tried": visible}))
        assert group.seen_before == times
