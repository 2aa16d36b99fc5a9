"""Connections and their sessions: the pool, the guard, the embedded server, migrations, SQL texts.

Owns every way to PostgreSQL. It may import the words at the package root only. It knows no batch
and no item: a statement about the library's tables belongs in `store`.
"""
