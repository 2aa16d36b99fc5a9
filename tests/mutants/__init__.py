"""Broken protocols, each of which the suite must notice: `make mutants`."""
