"""What can be written on the command line, declared once for all commands."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

GLOBAL = "Global options (before or after the command)"
LARGEST_NUMBER = 2_147_483_647

BatchName = Annotated[
    str,
    typer.Argument(
        metavar="BATCH",
        help="Its id, a unique tail of it, latest, or latest:TYPE.",
        show_default=False,
    ),
]
ItemNumber = Annotated[
    int, typer.Argument(metavar="N", min=1, max=LARGEST_NUMBER, help="The item's number.")
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency", min=1, max=1000, metavar="N", help="Items at once.", show_default="10"
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Group = Annotated[
    str | None, typer.Option("--group", metavar="GROUP", help="Only failures of this group.")
]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; stored with the batch's log.")]
BatchType = Annotated[
    str | None, typer.Option("--type", "-t", metavar="TYPE", help="Only this batch type.")
]

Json = Annotated[
    bool, typer.Option("--json", help="Results as JSON, one object a line.", rich_help_panel=GLOBAL)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, no notes.", rich_help_panel=GLOBAL)
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="The library's log; progress as lines where there is no terminal.",
        rich_help_panel=GLOBAL,
    ),
]
Processors = Annotated[
    list[str] | None,
    typer.Option(
        "--processors",
        "-p",
        metavar="PACKAGE",
        help="Where your processors are, e.g. myapp.processors; repeatable, or separated by "
        "commas. Default: RELIABLE_IMPORTS_PROCESSORS.",
        rich_help_panel=GLOBAL,
    ),
]
UrlFile = Annotated[
    Path | None,
    typer.Option(
        "--database-url-file",
        metavar="PATH",
        help="A file that holds the database URL, instead of RELIABLE_IMPORTS_DATABASE_URL. "
        "(On the command line others could read its password.)",
        rich_help_panel=GLOBAL,
    ),
]


class OnSameFile(StrEnum):
    """What to do with a file that was imported before."""

    REFUSE = "refuse"
    SKIP = "skip"
    FORCE = "force"


LIMITS = "When failures stop it"
MaxFailures = Annotated[
    int | None,
    typer.Option(
        "--max-failures",
        min=0,
        metavar="N",
        help="Pause when more items fail.",
        rich_help_panel=LIMITS,
    ),
]
MaxFailureRate = Annotated[
    float | None,
    typer.Option(
        "--max-failure-rate",
        min=0,
        max=1,
        metavar="SHARE",
        help="Pause when a larger share fails, 0 to 1.",
        rich_help_panel=LIMITS,
    ),
]
MinProcessed = Annotated[
    int | None,
    typer.Option(
        "--min-processed",
        min=1,
        metavar="N",
        help="Items before the share counts.",
        show_default="100",
        rich_help_panel=LIMITS,
    ),
]
Tolerate = Annotated[
    float | None,
    typer.Option(
        "--tolerate",
        min=0,
        max=1,
        metavar="SHARE",
        help="Exit with 0 when no larger share of the items failed, 0 to 1.",
        rich_help_panel=LIMITS,
    ),
]
Trial = Annotated[
    bool,
    typer.Option("--dry-run", help="Try every item and roll it back; the batch stays pending."),
]
ExpectCount = Annotated[
    int | None,
    typer.Option(
        "--expect-count",
        min=0,
        metavar="N",
        help="Nothing is imported unless the file has N records.",
    ),
]
ExpectSum = Annotated[
    list[str] | None,
    typer.Option(
        "--expect-sum", metavar="NAME=SUM", help="The expected sum of a column; repeatable."
    ),
]

Unchanged = Annotated[
    bool,
    typer.Option(
        "--no-skip-unchanged", help="Also process records that have not changed since their import."
    ),
]

READING = "File format (detected by default)"

File = Annotated[str, typer.Argument(metavar="FILE", help="A file, or - for stdin.")]
ImportedType = Annotated[str, typer.Option("--type", "-t", metavar="TYPE", help="The batch type.")]
Format = Annotated[
    str | None,
    typer.Option("--format", help="csv, tsv, jsonl or json.", rich_help_panel=READING),
]
Delimiter = Annotated[
    str | None,
    typer.Option("--delimiter", help="Between CSV fields; or: tab.", rich_help_panel=READING),
]
Encoding = Annotated[
    str | None, typer.Option("--encoding", help="Such as utf-8.", rich_help_panel=READING)
]
AllowEmpty = Annotated[
    bool,
    typer.Option(
        "--allow-empty",
        help="A file without records is fine; without this the exit code is 5.",
        rich_help_panel=READING,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="A,B,…",
        help="The columns of a CSV file without a header.",
        rich_help_panel=READING,
    ),
]
SourceName = Annotated[
    str | None, typer.Option("--name", help="The name to store instead.", rich_help_panel=READING)
]
Metadata = Annotated[
    str | None,
    typer.Option("--metadata", metavar="JSON", help="For processors, e.g. '{\"year\": 2013}'."),
]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="A request with the same key returns the same batch.",
    ),
]
SameFileChoice = Annotated[
    OnSameFile,
    typer.Option("--on-same-file", help="What to do if the same file was already imported."),
]


def global_options(
    *,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    processors: Processors = None,
    database_url_file: UrlFile = None,
) -> None:
    """The options that every command takes; only its signature is used."""
