"""``python -m reliable_imports_async``: the same as the command reliable-imports."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
