"""The interface for user code: processors, their context, keys, failure limits and the registry.

Owns the contract with user code. It may import `store`, `database` and the words. Running items
belongs in `execution`, running batches in `runner`.
"""
