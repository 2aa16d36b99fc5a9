"""The arguments and options of the commands, each declared once."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..loading.options import ThresholdOptions

GLOBAL = "Global options (before or after the command)"
LARGEST_NUMBER = 2_147_483_647
BATCH_HELP = "The batch's id, the unique end of an id, latest, or latest:TYPE."

BatchName = Annotated[
    str,
    typer.Argument(
        metavar="BATCH",
        help=BATCH_HELP,
        show_default=False,
    ),
]
ItemNumber = Annotated[
    int, typer.Argument(metavar="N", min=1, max=LARGEST_NUMBER, help="The item's number.")
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        min=1,
        max=1000,
        metavar="N",
        help="How many items run at once.",
        show_default="10",
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        "--processes",
        min=1,
        max=256,
        metavar="N",
        help="How many processes work; each runs --concurrency items at once.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Group = Annotated[
    str | None, typer.Option("--group", metavar="GROUP", help="Only failures of this group.")
]
Reason = Annotated[str | None, typer.Option("--reason", help="The reason, for the batch's log.")]
BatchType = Annotated[
    str | None, typer.Option("--type", "-t", metavar="TYPE", help="Only this batch type.")
]

Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Write results as JSON, one object per line.", rich_help_panel=GLOBAL
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show no progress and no notes.", rich_help_panel=GLOBAL),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Show the library's log, and progress as lines if there is no terminal.",
        rich_help_panel=GLOBAL,
    ),
]
Processors = Annotated[
    list[str] | None,
    typer.Option(
        "--processors",
        "-p",
        metavar="PACKAGE",
        help="The package of your processors, e.g. myapp.processors; repeatable, or separated by "
        "commas. Default: RELIABLE_IMPORTS_PROCESSORS.",
        rich_help_panel=GLOBAL,
    ),
]
UrlFile = Annotated[
    Path | None,
    typer.Option(
        "--database-url-file",
        metavar="PATH",
        help="A file that contains the database URL, instead of RELIABLE_IMPORTS_DATABASE_URL. "
        "(A URL on the command line would show its password to other users.)",
        rich_help_panel=GLOBAL,
    ),
]


class OnSameFile(StrEnum):
    """What to do if the same file was already imported."""

    REFUSE = "refuse"
    SKIP = "skip"
    FORCE = "force"


LIMITS = "Failure limits"
MaxFailures = Annotated[
    int | None,
    typer.Option(
        "--max-failures",
        min=0,
        metavar="N",
        help="Pause the batch when more than N items fail.",
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
        help="Pause the batch when a larger share of the items fails, 0 to 1.",
        rich_help_panel=LIMITS,
    ),
]
MinProcessed = Annotated[
    int | None,
    typer.Option(
        "--min-processed",
        min=1,
        metavar="N",
        help="Apply --max-failure-rate only after N items.",
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
        help="Exit with 0 if at most this share of the items failed, 0 to 1.",
        rich_help_panel=LIMITS,
    ),
]
Trial = Annotated[
    bool,
    typer.Option("--dry-run", help="Run every item and roll it back; the batch stays pending."),
]
ExpectCount = Annotated[
    int | None,
    typer.Option(
        "--expect-count",
        min=0,
        metavar="N",
        help="Refuse the file unless it has N records.",
    ),
]
ExpectSum = Annotated[
    list[str] | None,
    typer.Option(
        "--expect-sum",
        metavar="NAME=SUM",
        help="Refuse the file unless the column NAME adds up to SUM; repeatable.",
    ),
]

Unchanged = Annotated[
    bool,
    typer.Option(
        "--no-skip-unchanged",
        help="Also process records that have not changed since their last import.",
    ),
]

READING = "File format (detected by default)"

File = Annotated[str, typer.Argument(metavar="FILE", help="The file to import, or - for stdin.")]
ImportedType = Annotated[str, typer.Option("--type", "-t", metavar="TYPE", help="The batch type.")]
Format = Annotated[
    str | None,
    typer.Option("--format", help="csv, tsv, jsonl or json.", rich_help_panel=READING),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        help="The character between CSV fields, or the word tab.",
        rich_help_panel=READING,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option("--encoding", help="The encoding, e.g. utf-8.", rich_help_panel=READING),
]
AllowEmpty = Annotated[
    bool,
    typer.Option(
        "--allow-empty",
        help="Accept a file without records; otherwise the exit code is 5.",
        rich_help_panel=READING,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="A,B,…",
        help="The column names of a file without a header.",
        rich_help_panel=READING,
    ),
]
SkipRows = Annotated[
    int,
    typer.Option(
        "--skip-rows",
        min=0,
        metavar="N",
        help="Skip N lines at the beginning.",
        rich_help_panel=READING,
    ),
]
HeaderRow = Annotated[
    int | None,
    typer.Option(
        "--header-row",
        min=1,
        metavar="N",
        help="The line that contains the names of the columns.",
        rich_help_panel=READING,
    ),
]
SkipFooter = Annotated[
    int,
    typer.Option(
        "--skip-footer",
        min=0,
        metavar="N",
        help="Leave out N records at the end, e.g. totals.",
        rich_help_panel=READING,
    ),
]
Comment = Annotated[
    str | None,
    typer.Option(
        "--comment",
        metavar="TEXT",
        help="Skip lines that begin with TEXT, e.g. #.",
        rich_help_panel=READING,
    ),
]
Member = Annotated[
    str | None,
    typer.Option(
        "--member",
        metavar="NAME",
        help="The file in a ZIP archive of several.",
        rich_help_panel=READING,
    ),
]
SourceName = Annotated[
    str | None,
    typer.Option(
        "--name", help="The name to store instead of the file's.", rich_help_panel=READING
    ),
]
Metadata = Annotated[
    str | None,
    typer.Option(
        "--metadata", metavar="JSON", help="An object for the processor, e.g. '{\"year\": 2013}'."
    ),
]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="Another import with the same key returns the same batch.",
    ),
]
SameFileChoice = Annotated[
    OnSameFile,
    typer.Option("--on-same-file", help="What to do if the same file was already imported."),
]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """The options that say how a file is read, declared together."""

    format: Format = None
    delimiter: Delimiter = None
    encoding: Encoding = None
    columns: Columns = None
    skip_rows: SkipRows = 0
    header_row: HeaderRow = None
    skip_footer: SkipFooter = 0
    comment: Comment = None
    member: Member = None
    allow_empty: AllowEmpty = False
    name: SourceName = None


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of the commands that run a batch, declared together."""

    max_failures: MaxFailures = None
    max_failure_rate: MaxFailureRate = None
    min_processed: MinProcessed = None
    tolerate: Tolerate = None
    concurrency: Concurrency = None
    processes: Processes = 1

    @property
    def thresholds(self) -> ThresholdOptions:
        """The failure limits, as the manager takes them."""
        return {
            "max_failures": self.max_failures,
            "max_failure_rate": self.max_failure_rate,
            "min_processed": self.min_processed,
        }


def global_options(
    *,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    processors: Processors = None,
    database_url_file: UrlFile = None,
) -> None:
    """The options that every command takes; only its signature is used."""
