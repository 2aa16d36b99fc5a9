"""What the tests reach of `cli` beyond its public face; nothing else names its modules."""

from reliable_imports_async.cli import formatting, main
from reliable_imports_async.cli.app import COMMANDS, DATABASE_COMMANDS
from reliable_imports_async.cli.output import Output
from reliable_imports_async.cli.progress import Bar, Lines, display
from reliable_imports_async.cli.views import batches_table

__all__ = [
    "COMMANDS",
    "DATABASE_COMMANDS",
    "Bar",
    "Lines",
    "Output",
    "batches_table",
    "display",
    "formatting",
    "main",
]
