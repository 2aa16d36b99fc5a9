"""Connections and their sessions: the pool, the guard, the embedded server, migrations, SQL texts.

Owns every connection to PostgreSQL. It may import only the words at the package root. It does not
know batches and items: statements about the library's tables belong in `store`.
"""
