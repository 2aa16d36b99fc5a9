"""Settings, from arguments or from environment variables that start with RELIABLE_IMPORTS_."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .models import LogLevel

PREFIX = "RELIABLE_IMPORTS_"


class Settings(BaseSettings):
    """How a manager behaves. Each field is read from RELIABLE_IMPORTS_<FIELD NAME>."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        env_parse_none_str="none",
    )

    database_url: SecretStr | None = Field(
        default=None, description="PostgreSQL URL, or `embedded:` for the embedded server."
    )
    direct_url: SecretStr | None = Field(
        default=None,
        description="Where `database_url` is a pooler: the URL past it, by which workers are woken "
        "(LISTEN); without it they look once a second.",
    )
    statement_cache: bool = Field(
        default=True,
        description="Keep prepared statements; `false` behind a transaction pooler such as "
        "PgBouncer before 1.21.",
    )
    processors: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Packages to discover processors in, separated by commas."
    )
    concurrency: int | None = Field(
        default=None, ge=1, le=1000, description="Items at once; default 10, or what a pool allows."
    )
    lease_seconds: float = Field(
        default=15.0,
        description="Seconds a silent worker keeps its ranges; recovery from a kill waits for it.",
    )
    item_timeout: float = Field(
        default=60.0, gt=0, description="Seconds an item may take, unless its processor says more."
    )
    commit_timeout: float = Field(
        default=30.0,
        gt=0,
        description="Seconds to wait for a COMMIT before asking what became of it.",
    )
    pause_after: int | None = Field(
        default=50,
        description="Consecutive exceptions of one group that pause a batch; `none` for never.",
    )
    max_record_bytes: int = Field(
        default=1_048_576, ge=1024, description="The largest record, as JSON text."
    )
    max_record_depth: int = Field(default=64, ge=1, le=500, description="The deepest nesting.")
    log_level: LogLevel = Field(
        default=LogLevel.INFO, description="The lowest level of log lines that are stored."
    )
    stop_timeout: float = Field(
        default=10.0,
        gt=0,
        description="Seconds a worker that is stopped waits for running items, before it rolls "
        "them back.",
    )
    connect_timeout: float = Field(
        default=10.0, gt=0, description="Seconds to wait for a new connection."
    )

    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Keys of the REST API, as `name:hash` (see `reliable-imports api-key`), "
        "separated by commas.",
    )
    api_secret: SecretStr | None = Field(
        default=None,
        description="Signs forms, at least 32 characters; set it when several processes serve.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Host names the API answers to, separated by commas; `*` for all."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Sites whose pages may use the API, separated by commas; none by default.",
    )
    max_body_bytes: int = Field(
        default=16 * 1024**2, ge=1024, description="The largest JSON body of a request."
    )
    max_upload_bytes: int = Field(
        default=4 * 1024**3, ge=1024, description="The largest uploaded file, as it is sent."
    )
    max_upload_ratio: float = Field(
        default=200, ge=1, description="Times its size that an uploaded gzip file may unfold to."
    )
    max_batch_items: int = Field(
        default=100_000, ge=1, description="Items in one JSON request that creates a batch."
    )
    max_page_size: int = Field(
        default=1000, ge=1, le=10_000, description="The largest page that may be asked for."
    )
    read_timeout: float = Field(
        default=15.0, gt=0, description="Seconds after which a reading request is given up."
    )
    header_timeout: float = Field(
        default=10.0, gt=0, description="Seconds a client of the API may take for its headers."
    )
    receive_timeout: float = Field(
        default=20.0, gt=0, description="Seconds a client may send nothing of its request's body."
    )
    receive_total: float = Field(
        default=3600.0, gt=0, description="Seconds a client may take for the whole body."
    )
    min_receive_rate: float = Field(
        default=500.0,
        ge=0,
        description="Bytes a second that a body must come at, after `receive_timeout`.",
    )
    send_timeout: float = Field(
        default=30.0, gt=0, description="Seconds a client may take nothing of its response."
    )
    shutdown_timeout: int = Field(
        default=30, ge=1, description="Seconds a stopping server gives the requests under way."
    )
    max_connections: int = Field(
        default=2000, ge=10, description="Connections to the server; those above are answered 503."
    )
    max_event_clients: int = Field(
        default=1000, ge=1, description="Clients that follow the progress of batches at once."
    )

    @classmethod
    def from_environment(cls, **given: Any) -> "Settings":
        """Settings from the environment; arguments that are not None win."""
        return cls(**{name: value for name, value in given.items() if value is not None})

    @classmethod
    def merged(
        cls, given: "Settings | None", database_url: str | None, concurrency: int | None
    ) -> "Settings":
        """The given settings, or those of the environment, with the arguments that were passed."""
        changes: dict[str, Any] = {}
        if database_url is not None:
            changes["database_url"] = SecretStr(database_url)
        if concurrency is not None:
            changes["concurrency"] = concurrency
        return cls(**changes) if given is None else given.model_copy(update=changes)

    @field_validator("processors", "api_keys", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        """Take a comma-separated list, as a variable gives one."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


_NO_SETTINGS = ("TRACEBACK", "TEST_DATABASE_URL")  # variables that others read


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Variables with our prefix that nothing reads, each with the one that is probably meant."""
    known = [PREFIX + name for name in (*map(str.upper, Settings.model_fields), *_NO_SETTINGS)]
    unknown = (name for name in map(str.upper, environment) if name.startswith(PREFIX))
    return {
        name: next(iter(difflib.get_close_matches(name, known, 1)), None)
        for name in sorted(unknown)
        if name not in known
    }
