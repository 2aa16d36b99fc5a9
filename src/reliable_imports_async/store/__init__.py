"""The library's tables: one function per statement, connection in, model out.

Owns the SQL about batches, items, ranges and logs, in `sql/` beside it. It may import `database`
and the words. It never decides anything, opens no transaction, and calls no user code.
"""
