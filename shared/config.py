"""Every setting, read from the environment once per process and passed down in slices.

`SWITCHBOARD_*` are our own names; `PORT`, `REDIS_URL`, `DATABASE_URL`, the providers' and Sentry's are the platform's.
The unit is in the name. `.env.example` lists them all; a test keeps it equal to this class.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import ConfigError

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


def _platform(name: str) -> Any:
    """A setting under the name platforms use, without our prefix."""
    return AliasChoices(name)


class Settings(BaseSettings):
    """Frozen; `Settings.read()` is the only constructor the program uses."""

    model_config = SettingsConfigDict(env_prefix="SWITCHBOARD_", frozen=True, extra="ignore", env_ignore_empty=True)

    environment: Literal["development", "staging", "production"] = "development"
    """`production` refuses an unsafe Redis or database role instead of warning."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, validation_alias=_platform("PORT"))] = 8000
    redis_url: Annotated[str, Field(validation_alias=_platform("REDIS_URL"), pattern=r"^(rediss?|unix)://")] = (
        "redis://127.0.0.1:6379/0"
    )
    database_url: Annotated[str, Field(validation_alias=_platform("DATABASE_URL"), pattern=r"^postgres(ql)?://")] = (
        "postgresql://switchboard_app@127.0.0.1:5432/switchboard"
    )
    owner_database_url: Annotated[str, Field(pattern=r"^postgres(ql)?://")] | None = None
    """Role that owns the schema, for migrations; `database_url` when not given."""
    ops_database_url: Annotated[str, Field(pattern=r"^postgres(ql)?://")] | None = None
    """Role that sees every tenant, for operators; `database_url` when not given, which sees one at a time."""

    openai_api_key: Annotated[SecretStr | None, Field(validation_alias=_platform("OPENAI_API_KEY"))] = None
    openai_base_url: Annotated[str | None, Field(validation_alias=_platform("OPENAI_BASE_URL"))] = None
    anthropic_api_key: Annotated[SecretStr | None, Field(validation_alias=_platform("ANTHROPIC_API_KEY"))] = None
    anthropic_base_url: Annotated[str | None, Field(validation_alias=_platform("ANTHROPIC_BASE_URL"))] = None
    sentry_dsn: Annotated[SecretStr | None, Field(validation_alias=_platform("SENTRY_DSN"))] = None

    secret: SecretStr = SecretStr("")
    """Signs the read tokens of `events_url`; at least 16 characters outside development."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"

    # admission
    max_body_bytes: Positive = 262_144
    max_message_chars: Positive = 32_000
    max_queue_depth: Positive = 100_000
    """Never-started jobs of one queue; beyond it admission answers 503."""
    ttl_s: Positive = 600
    """A job not started by then expires."""
    max_ttl_s: Positive = 86_400
    idempotency_ttl_s: Positive = 86_400
    sdk_retry_ttl_s: Positive = 600
    """How long an SDK's own retry (no Idempotency-Key) finds the job of its first try."""
    long_poll_max_s: Positive = 60
    sse_keepalive_s: Seconds = 15.0
    key_cache_ttl_s: Seconds = 1.0
    """A revoked key is refused everywhere within this time."""

    # the queue
    queue: str = "default"
    """The queue a worker process serves."""
    worker_concurrency: Positive = 1_000
    lease_s: Seconds = 4.0
    """A killed worker's jobs run elsewhere after at most this; the worker renews it every quarter."""
    drain_s: Annotated[float, Field(ge=0)] = 20.0
    """After SIGTERM: how long running jobs may finish before they are handed back."""
    max_attempts: Positive = 4
    retry_base_s: Seconds = 1.0
    retry_cap_s: Seconds = 30.0
    retry_horizon_s: Seconds = 120.0
    """A job holds its conversation for at most this long after its first start."""
    result_ttl_s: Positive = 3_600
    """How long results and events stay in Redis after the end; later polls are answered from Postgres."""
    max_events: Positive = 2_000
    """Events kept per job."""

    # models
    model_timeout_s: Seconds = 120.0
    model_idle_timeout_s: Seconds = 30.0
    """Longest silence between two pieces of a streamed reply."""
    max_tokens: Positive = 500

    # Postgres
    db_pool_size: Positive = 10

    @classmethod
    def read(cls, overrides: Mapping[str, Any] | None = None) -> "Settings":
        """Settings from the environment; `overrides` win (field names). Raises ConfigError naming every fault."""
        try:
            settings = cls(**(dict(overrides) if overrides else {}))
        except ValidationError as error:
            raise ConfigError("; ".join(_fault(item) for item in error.errors())) from None
        if settings.environment != "development" and len(settings.secret.get_secret_value()) < 16:
            raise ConfigError("SWITCHBOARD_SECRET must have at least 16 characters outside development")
        return settings


def environment_name(field: str) -> str:
    """The environment variable of a field: `PORT`, `SWITCHBOARD_TTL_S`, …"""
    alias = Settings.model_fields[field].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"SWITCHBOARD_{field.upper()}"


def _fault(item: Any) -> str:
    where = str(item["loc"][0])
    name = environment_name(where) if where in Settings.model_fields else where
    value = item.get("input")
    shown = "<hidden>" if "KEY" in name or "SECRET" in name or "URL" in name or "DSN" in name else repr(value)
    return f"{name}={shown}: {item['msg']}"
