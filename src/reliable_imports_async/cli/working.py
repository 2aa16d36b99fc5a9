"""worker: processes what was enqueued, until it is stopped."""

from typing import Annotated

import typer

from .invocation import Invocation
from .options import Concurrency
from .stopping import stoppable

STOPPING = "Stopping: finishing running items. Press Ctrl-C again to quit immediately."


async def worker(
    cli: Invocation,
    *,
    types: Annotated[
        str | None,
        typer.Option(
            "--types", metavar="A,B", help="Only these batch types; by default all registered ones."
        ),
    ] = None,
    concurrency: Concurrency = None,
) -> None:
    """Process enqueued batches beside other workers, until Ctrl-C or SIGTERM."""
    wanted = None if types is None else [each.strip() for each in types.split(",") if each.strip()]
    async with cli.manager(concurrency=concurrency, discover=True) as manager:
        names = ", ".join(wanted or manager.registry.batch_types) or "nothing: no --processors"
        cli.output.note(f"Working on {names}.")
        async with stoppable(cli.output, STOPPING):
            await manager.run_worker(wanted)
