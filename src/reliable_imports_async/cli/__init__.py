"""The command `reliable-imports`: the verbs of BatchManager from a terminal.

Owns arguments, output, prompts and exit codes. It may import every room. What a batch does belongs
below `manager`.
"""

from .app import main

__all__ = ["main"]
