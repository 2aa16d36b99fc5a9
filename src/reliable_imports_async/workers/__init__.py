"""Background processing by PgQueuer: jobs, the worker that takes them, and its driver.

Owns everything that knows PgQueuer's API. It may import `runner`, `repair` and the rooms below.
How a batch is processed belongs in `runner`.
"""
