"""Items in transactions: prepare, attempt, settle, commit; single items, chunks and sets.

Owns what happens to items between BEGIN and COMMIT. It may import `processors` and the rooms
below. Which items run, and when, is decided in `runner`.
"""
