"""After a failure: reprocess, correct, edit, export and purge.

Owns what may happen to a lineage after its first try. It may import `loading`, `execution` and the
rooms below, but not `runner`: it creates batches, and others run them.
"""
