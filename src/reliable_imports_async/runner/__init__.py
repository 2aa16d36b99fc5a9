"""One batch to its end: claims, slots, leases, limits, hooks and dry runs.

Owns what a process does with a batch. It may import `execution`, `loading` and the rooms below.
It knows nothing of job queues, HTTP or the command line.
"""
