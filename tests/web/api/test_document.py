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


async def test_a_response_has_exactly_the_fields_that_it_describes(api):
    bad = {"email": "ann@example.com", "age": "not a number"}
    async with client_of(api.app) as client:
        schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]

        def described(name, body, *empty):
            """All fields; those that are always empty here are not described."""
            assert set(body) == {*schemas[name]["properties"], *empty}, name
            assert not any(body[one] for one in empty)

        made = {"batch_type": "customer_data", "items": [bad], "process": "wait"}
        batch = (await client.post("/api/batches", json=made)).json()
        described("BatchAnswer", batch, "stopped")
        of_causes = {*schemas["CauseAnswer"]["properties"]} - {
            *schemas["GroupAnswer"]["properties"]
        }
        described("GroupAnswer", batch["groups"][0], *of_causes)
        path = f"/api/batches/{batch['batch_id']}"
        detailed = (await client.get(path)).json()
        described("DetailedBatchAnswer", detailed | {"replayed": False}, "stopped")
        described("LineageAnswer", detailed["lineage"][0])
        described("ListedBatch", (await client.get("/api/batches")).json()["batches"][0])
        described("ItemAnswer", (await client.get(f"{path}/items/1")).json())
        described("FailuresAnswer", failures := (await client.get(f"{path}/failures")).json())
        described("CauseAnswer", failures["groups"][0])
        await client.patch(f"{path}/items/1", json={"source_data": bad, "force": True})
        described("EditAnswer", (await client.get(f"{path}/items/1/edits")).json()["edits"][0])
