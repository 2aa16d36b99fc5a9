"""worker: processes what was enqueued, until it is stopped."""

import logging
from typing import Annotated

import typer

from .exit_codes import UsageRefused
from .invocation import Invocation
from .options import Concurrency
from .output import STEPS
from .signals import stoppable

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
    """Process queued batches beside other workers, until Ctrl-C or SIGTERM.

    Writes one line for each batch that it takes, finishes, takes over from a worker that died, or
    waits for.
    """
    wanted = None if types is None else [each.strip() for each in types.split(",") if each.strip()]
    async with cli.manager(concurrency=concurrency, discover=True) as manager:
        names = ", ".join(wanted or manager.registry.batch_types)
        if not names:
            raise UsageRefused(
                "No processor is registered, so there is nothing to work on.",
                hint="name the package that holds your processors with --processors.",
            )
        cli.output.note(f"Waiting for batches of type {names}. Stop with Ctrl-C.")
        logging.getLogger(STEPS).setLevel(logging.INFO)
        async with stoppable(cli.output, STOPPING):
            await manager.run_worker(wanted)
