"""The REST API with a custom endpoint: a quota per user, and a notification when a batch ends.

Run it with `python -m examples.api_example [postgresql://…]`, then open http://127.0.0.1:8000/docs.
"""
# mypy: allow-untyped-defs

import sys

from pydantic import BaseModel, Field

from reliable_imports_async import APIManager, BaseEndpoint, BaseProcessor, BatchManager

QUOTA = 1_000  # pending items per user


class Contact(BaseModel):
    email: str = Field(pattern="@", examples=["ada@example.org"])
    name: str = Field(examples=["Ada"])


class ContactProcessor(BaseProcessor[Contact]):  # -> batch type "contact"
    """Inserts contacts, or updates them by their e-mail address."""

    async def on_batch_start(self, ctx):
        await ctx.execute(
            "CREATE TABLE IF NOT EXISTS contacts (email text PRIMARY KEY, name text NOT NULL)"
        )

    async def process_item(self, item, ctx):
        await ctx.upsert("contacts", item.data.model_dump(), key="email")
        return {"target_table": "contacts", "target_id": item.data.email}


class ContactEndpoint(BaseEndpoint):  # belongs to batch type "contact"
    def __init__(self):
        self.notifications = []

    async def before_create_batch(self, request_data, ctx):
        waiting = 0
        async for batch in ctx.manager.list_batches(batch_type="contact", status="pending"):
            waiting += batch.total_items if batch.created_by == ctx.user_id else 0
        if waiting + len(request_data.items or []) > QUOTA:
            raise ValueError(f"You have {waiting} pending items; at most {QUOTA} are allowed.")

    async def after_batch_complete(self, batch_id, summary, ctx):
        # Send an e-mail or call a webhook here. It may run again after a crash: make it repeatable.
        self.notifications.append(
            f"{summary.completed_items} of {summary.total_items} contacts are imported"
        )
        ctx.info("notification sent", user=ctx.user_id)


def api(url: str | None = None) -> APIManager:
    """Return the API for a database, by default an embedded one."""
    manager = BatchManager(url) if url else BatchManager.embedded("examples")
    manager.registry.discover(__name__)  # finds processors and endpoints
    return APIManager(manager)


if __name__ == "__main__":
    api(sys.argv[1] if len(sys.argv) > 1 else None).run()
