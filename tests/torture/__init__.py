"""Torture: real worker processes, a seeded nemesis, invariants checked in the data."""
