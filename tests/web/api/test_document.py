"""The API document: valid, typed by the processors' models, and true of what the API does."""

import pytest_asyncio
from openapi_spec_validator import validate

from reliable_imports_async import APIManager

from ..reach import OPERATIONS
from .test_api import client_of, register


@pytest_asyncio.fixture(loop_scope="session")
async def api(manager):
    api = APIManager(register(manager))
    async with api.running(allow_anonymous=True):
        yield api


async def test_it_is_valid_and_describes_the_models(api):
    async with client_of(api.app) as client:
        document = (await client.get("/openapi.json")).json()
    validate(document)
    body = document["paths"]["/api/batches"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["discriminator"]["propertyName"] == "batch_type"
    typed = document["components"]["schemas"]["Create_customer_data"]
    assert typed["properties"]["batch_type"]["const"] == "customer_data"
    assert typed["properties"]["items"]["items"]["anyOf"][1] == {}
    example = body["examples"]["customer_data"]["value"]
    assert example["items"] == [{"email": "ann@example.com", "age": 30}]


async def test_every_operation_is_in_it(api):
    async with client_of(api.app) as client:
        document = (await client.get("/openapi.json")).json()
    ids = {one["operationId"] for path in document["paths"].values() for one in path.values()}
    assert ids == {one.handler.__name__ for one in OPERATIONS if not one.hidden}
    assert all(one.answers for one in OPERATIONS if not one.hidden)
