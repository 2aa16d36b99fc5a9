"""The work after a failure: reprocess, correct, edit, export and purge.

Owns the changes to a lineage after its first run. It may import `loading`, `execution` and the
rooms below, but not `runner`: it creates batches, and `runner` runs them.
"""
