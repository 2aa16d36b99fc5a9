"""From a source to a stored batch: sources, records, column checks and the binary COPY.

Owns everything before a batch exists. It may import `processors` and the rooms below. It never
runs an item.
"""
