"""worker: processes queued batches until it is stopped."""

import logging
from typing import Annotated

import typer

from .exit_codes import UsageRefused
from .invocation import Invocation
from .options import Concurrency, Processes
from .output import STEPS
from .signals import STOPPING, stoppable


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
    processes: Processes = 1,
) -> None:
    """Process queued batches, along with other workers, until Ctrl-C or SIGTERM.

    Writes one line when it takes a batch, waits for one, finishes one, or takes one over from a
    worker that died.
    """
    wanted = None if types is None else [name.strip() for name in types.split(",") if name.strip()]
    async with cli.manager(concurrency=concurrency, discover=True) as manager:
        names = ", ".join(wanted or manager.registry.batch_types)
        if not names:
            raise UsageRefused(
                "No processors are registered, so there is nothing to work on.",
                hint="name the package of your processors with --processors.",
            )
        cli.output.note(f"Waiting for batches of type {names}. Press Ctrl-C to stop.")
        logging.getLogger(STEPS).setLevel(logging.INFO)
        async with stoppable(cli.output, STOPPING):
            await manager.run_worker(wanted, processes=processes)
