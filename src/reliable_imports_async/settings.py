"""Settings, from arguments or from environment variables that start with RELIABLE_IMPORTS_."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .models import LogLevel

PREFIX = "RELIABLE_IMPORTS_"


class Settings(BaseSettings):
    """The settings of a manager; each is read from the variable RELIABLE_IMPORTS_<NAME>."""

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
        description="If `database_url` is a pooler: a direct URL of the server, through which "
        "workers are notified (LISTEN). Without it, they check once a second.",
    )
    statement_cache: bool = Field(
        default=True,
        description="Whether to keep prepared statements; set it to `false` behind a transaction "
        "pooler such as PgBouncer before 1.21.",
    )
    processors: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Packages that contain processors, separated by commas."
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="How many items run at once; by default 10, or as many as the pool allows.",
    )
    lease_seconds: float = Field(
        default=15.0,
        description="Seconds after which the ranges of a silent worker are released; recovery "
        "from a kill takes this long.",
    )
    item_timeout: float = Field(
        default=60.0,
        gt=0,
        description="Seconds an item may take, unless its processor sets another limit.",
    )
    commit_timeout: float = Field(
        default=30.0,
        gt=0,
        description="Seconds to wait for a COMMIT before looking up whether it was done.",
    )
    pause_after: int | None = Field(
        default=50,
        description="Consecutive exceptions of one group that pause a batch; `none` for never.",
    )
    max_record_bytes: int = Field(
        default=1_048_576, ge=1024, description="The size of the largest record as JSON, in bytes."
    )
    max_record_depth: int = Field(
        default=64, ge=1, le=500, description="The deepest nesting of a record."
    )
    log_level: LogLevel = Field(
        default=LogLevel.INFO, description="The lowest level of log lines to store."
    )
    stop_timeout: float = Field(
        default=10.0,
        gt=0,
        description="Seconds that a worker waits for running items when it is stopped; then it "
        "rolls them back.",
    )
    connect_timeout: float = Field(
        default=10.0, gt=0, description="Seconds to wait for a new connection."
    )

    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="The keys of the REST API, as `name:hash` (see `reliable-imports api-key`), "
        "separated by commas.",
    )
    api_secret: SecretStr | None = Field(
        default=None,
        description="The secret that signs forms, at least 32 characters; required if several "
        "processes serve.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="The host names that the API answers to, separated by commas; `*` for all.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Sites whose pages may use the API, separated by commas; none by default.",
    )
    max_body_bytes: int = Field(
        default=16 * 1024**2, ge=1024, description="The largest JSON body of a request, in bytes."
    )
    max_upload_bytes: int = Field(
        default=4 * 1024**3, ge=1024, description="The largest uploaded file, in bytes as sent."
    )
    max_upload_ratio: float = Field(
        default=200,
        ge=1,
        description="How many times its size an uploaded compressed file may expand to.",
    )
    max_batch_items: int = Field(
        default=100_000, ge=1, description="The most items in a JSON request that creates a batch."
    )
    max_page_size: int = Field(
        default=1000, ge=1, le=10_000, description="The largest page that a client may request."
    )
    read_timeout: float = Field(
        default=15.0, gt=0, description="Seconds after which a read request fails."
    )
    header_timeout: float = Field(
        default=10.0, gt=0, description="Seconds that a client may take to send the headers."
    )
    receive_timeout: float = Field(
        default=20.0, gt=0, description="Seconds that a client may pause while sending a body."
    )
    receive_total: float = Field(
        default=3600.0, gt=0, description="Seconds that a client may take to send the whole body."
    )
    min_receive_rate: float = Field(
        default=500.0,
        ge=0,
        description="The lowest rate of a body in bytes per second, after `receive_timeout`.",
    )
    send_timeout: float = Field(
        default=30.0, gt=0, description="Seconds that a client may pause while reading a response."
    )
    shutdown_timeout: int = Field(
        default=30,
        ge=1,
        description="Seconds that a stopping server waits for the requests in progress.",
    )
    max_connections: int = Field(
        default=2000,
        ge=10,
        description="The most connections to the server; further connections get status 503.",
    )
    max_event_clients: int = Field(
        default=1000,
        ge=1,
        description="The most clients that follow the progress of batches at the same time.",
    )

    @classmethod
    def from_environment(cls, **given: Any) -> "Settings":
        """Settings from the environment; arguments that are not None override them."""
        return cls(**{name: value for name, value in given.items() if value is not None})

    @classmethod
    def merged(
        cls, given: "Settings | None", database_url: str | None, concurrency: int | None
    ) -> "Settings":
        """The given settings, or those of the environment, overridden by the other arguments."""
        changes: dict[str, Any] = {}
        if database_url is not None:
            changes["database_url"] = SecretStr(database_url)
        if concurrency is not None:
            changes["concurrency"] = concurrency
        return cls(**changes) if given is None else given.model_copy(update=changes)

    @field_validator("processors", "api_keys", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        """Accept a comma-separated list, as in an environment variable."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


_OTHER_VARIABLES = ("TRACEBACK", "TEST_DATABASE_URL")  # variables that the CLI and the tests read


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Unknown variables with our prefix, each with the most similar known variable."""
    known = [PREFIX + name for name in (*map(str.upper, Settings.model_fields), *_OTHER_VARIABLES)]
    unknown = (name for name in map(str.upper, environment) if name.startswith(PREFIX))
    return {
        name: next(iter(difflib.get_close_matches(name, known, 1)), None)
        for name in sorted(unknown)
        if name not in known
    }
