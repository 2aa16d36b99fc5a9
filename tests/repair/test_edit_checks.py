"""An edit that cannot be meant is refused, in every place the same way, and can be forced."""

import re
from typing import Annotated, Any, Literal

import httpx
import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from reliable_imports_async import APIManager, BaseProcessor, BatchManager
from reliable_imports_async.errors import EditNotAccepted
from reliable_imports_async.failures import describe
from reliable_imports_async.outcomes import FailureKind

from ..support.command import Command
from ..web.reach import wrong_fields


class Card(BaseModel):
    kind: Literal["card"]
    number: int
    cents: int = Field(default=0, alias="Amount")


class Cash(BaseModel):
    kind: Literal["cash"]
    till: str


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    n: int


class Ordered(BaseModel):
    low: int
    high: int

    @model_validator(mode="after")
    def in_order(self):
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


Payment = Annotated[Card | Cash, Field(discriminator="kind")]


def processor_of(model: Any) -> type[BaseProcessor]:
    class PaidProcessor(BaseProcessor[model]):
        async def process_item(self, item, ctx):
            raise ValueError("never")

    return PaidProcessor


CARD = {"kind": "card", "number": "x"}
RANGE = {"low": "5", "high": "1"}
CASES = [
    (Payment, CARD, {"kind": "card", "number": "7"}, None),
    (Payment, CARD, {"kind": "card", "number": "y"}, "number: Input should be a valid integer"),
    (Payment, CARD, {"kind": "card", "nunber": "7", "number": "x"}, "nunber: there is no such"),
    (Payment, CARD, {"kind": "card", "number": "7", "Amount": "3"}, None),
    (Payment, CARD, {"kind": "cash", "till": "A"}, None),
    (Payment, CARD, {"kind": "cheque", "number": "7"}, "kind"),
    (Payment, CARD, {"kind": "card"}, "number: Field required"),
    (Open, {"n": "x"}, {"n": "7", "whatever": "it is"}, None),
    (Open, {"n": "x"}, {"n": "", "whatever": "it is"}, "n: Input should be"),
    (Ordered, RANGE, {"low": "0", "high": "1"}, None),
    (Ordered, {"low": "x", "high": "y"}, {"low": "1", "high": "y"}, None),  # step by step
    (Ordered, {"low": "1", "high": "2"}, {"low": "3", "high": "2"}, "low is above high"),
    (None, {"a": "1"}, {"a": "2"}, None),
    (None, {"a": "1"}, {"a": "1", "b": "2"}, "b: there is no such field"),
    (None, {"a": "1"}, {"b": "2"}, None),  # nothing names the fields: this one is another record
    (dict[str, int], {"a": "1"}, {"a": "1", "b": "2"}, None),
]


@pytest.mark.parametrize(("model", "before", "after", "problem"), CASES)
async def test_only_what_fits_is_saved(manager: BatchManager, model, before, after, problem):
    cls = processor_of(model) if model is not None else plain()
    manager.registry.register(cls)
    summary = await manager.process_batch(await manager.create_batch("paid", [before]))
    assert summary.failed_items == 1
    if problem is None:
        await manager.update_item_source(summary.batch_id, 1, after)
    else:
        with pytest.raises(EditNotAccepted, match=re.escape(problem)):
            await manager.update_item_source(summary.batch_id, 1, after)
        assert (await manager.get_item(summary.batch_id, 1)).source_data == before
        await manager.update_item_source(summary.batch_id, 1, after, force=True)
    assert (await manager.get_item(summary.batch_id, 1)).source_data == after


def plain() -> type[BaseProcessor]:
    class PaidProcessor(BaseProcessor):
        async def process_item(self, item, ctx):
            raise ValueError("never")

    return PaidProcessor


class NumbersProcessor(BaseProcessor[Ordered]):
    async def process_item(self, item, ctx):
        raise ValueError("never")


@pytest.fixture
async def batch_id(manager: BatchManager):
    manager.registry.register(NumbersProcessor)
    made = await manager.create_batch("numbers", [{"low": "1", "high": "x"}])
    await manager.process_batch(made)
    return made


async def test_the_command_line_asks_for_force(bare: Command, dsn, batch_id, monkeypatch):
    monkeypatch.setenv("RELIABLE_IMPORTS_DATABASE_URL", dsn)
    monkeypatch.setenv("RELIABLE_IMPORTS_PROCESSORS", __name__)
    refused = await bare("edit", "latest", "1", "--set", "hihg=5")
    assert refused.code == 2
    assert "hihg: there is no such field" in refused.err
    assert "add --force" in refused.err
    refused = await bare("edit", "latest", "1", "--set", "high=y")
    assert (refused.code, "high: Input should be a valid integer" in refused.err) == (2, True)
    assert (await bare("edit", "latest", "1", "--set", "high=y", "--force")).code == 0
    monkeypatch.setenv("RELIABLE_IMPORTS_PROCESSORS", "")
    assert (await bare("edit", "latest", "1", "--set", "high=z")).code == 0, "nobody knows better"
    assert (await bare("edit", "latest", "1", "--set", "hihg=5")).code == 2


@pytest.fixture
async def client(manager: BatchManager):
    api = APIManager(manager, worker=False)
    async with (
        api.running(allow_anonymous=True),
        httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://test") as made,
    ):
        yield made


async def test_http_answers_422_unless_forced(client, batch_id):
    path = f"/api/batches/{batch_id}/items/1"
    body = {"source_data": {"low": "1", "high": "y"}}
    refused = await client.patch(path, json=body)
    assert refused.status_code == 422
    assert "high: Input should be a valid integer" in refused.json()["detail"]
    assert "`force`" in refused.json()["hint"]
    assert (await client.patch(path, json=body | {"force": True})).status_code == 200


async def test_the_dashboard_says_so_and_offers_to_save_it_all_the_same(client, batch_id):
    path = f"/dashboard/batches/{batch_id}/items/1/edit"
    page = (await client.get(path)).text
    form = {"token": re.search(r'name="token" value="([^"]+)"', page)[1], "field-1": "y"}
    headers = {"sec-fetch-site": "same-origin"}
    refused = await client.post(path, data=form, headers=headers)
    assert refused.status_code == 422
    assert "high: Input should be a valid integer" in refused.text
    assert 'name="force"' in refused.text
    assert 'value="y"' in refused.text, "what was typed is kept"
    saved = await client.post(path, data=form | {"force": "1"}, headers=headers)
    assert saved.status_code == 303


class Wallet(BaseModel):
    pay: Payment
    other: Card | Cash


@pytest.mark.parametrize(
    ("model", "record", "marked"),
    [
        (Payment, {"kind": "card", "number": "x"}, {"number"}),
        (Payment, {"kind": "card"}, {"number"}),
        (Payment, {"kind": "cheque"}, {"kind"}),
        (Payment, {"number": "1"}, {"kind"}),
        (Card | Cash, {"kind": "card", "number": "x"}, {"number", "kind", "till"}),
        (Wallet, {"pay": {"kind": "card", "number": "x"}, "other": 1}, {"pay", "other"}),
        (Wallet, {"pay": {"kind": "cash"}}, {"pay", "other"}),
        (Card, {"kind": "card", "number": "1", "Amount": "x"}, {"Amount"}),
    ],
)
def test_the_fields_of_a_union_are_marked_and_not_its_tags(model, record, marked):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - pydantic's
        TypeAdapter(model).validate_python(record)
    failure = describe(caught.value, kind=FailureKind.VALIDATION)
    assert set(wrong_fields(failure, record)) == marked
