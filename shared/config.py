"""Every setting, read from the environment once per process and passed down in slices.

`SWITCHBOARD_*` are our own names; `PORT`, `REDIS_URL`, `DATABASE_URL`, the providers' and Sentry's are the platform's.
The unit is in the name. `.env.example` lists them all; a test keeps it equal to this class.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import ConfigError
from shared.faults import Fault, fault_of, shown, summary, unknown_names
from shared.sealing import are_sealing_keys
from shared.setting_types import (
    DAY_S,
    ChannelUrls,
    Days,
    Dsn,
    HttpUrl,
    Key,
    Networks,
    Positive,
    PostgresUrl,
    RedisUrl,
    Seconds,
    SmtpUrl,
    Usd,
    WholeSeconds,
    read_channel_urls,
)
from shared.tenants import NONE

PREFIX = "SWITCHBOARD_"
MIN_SECRET_CHARS = 16
DEGRADED_REPLY = (
    "Sorry, I cannot answer right now. Your message has been received; please try again a little later, "
    "or contact us another way if it is urgent."
)


def _platform(name: str) -> Any:
    """A setting under the name platforms use, without our prefix."""
    return AliasChoices(name)


class Settings(BaseSettings):
    """Frozen; `Settings.read()` is the only constructor the program uses."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    environment: Literal["development", "staging", "production"] = "development"
    """`production` refuses an unsafe Redis or database role instead of warning."""

    host: Annotated[
        str, Field(pattern=r"^\S+$", description="an address or the name of one", examples=["127.0.0.1"])
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, validation_alias=_platform("PORT"))] = 8000
    redis_url: Annotated[RedisUrl, Field(validation_alias=_platform("REDIS_URL"))] = "redis://127.0.0.1:6379/0"
    database_url: Annotated[PostgresUrl, Field(validation_alias=_platform("DATABASE_URL"))] = (
        "postgresql://switchboard_app@127.0.0.1:5432/switchboard"
    )
    owner_database_url: PostgresUrl | None = None
    """Role that owns the schema, for migrations; `database_url` when not given."""
    ops_database_url: PostgresUrl | None = None
    """Role that sees every tenant, for operators; `database_url` when not given, which sees one at a time."""

    openai_api_key: Annotated[Key | None, Field(validation_alias=_platform("OPENAI_API_KEY"))] = None
    openai_base_url: Annotated[HttpUrl | None, Field(validation_alias=_platform("OPENAI_BASE_URL"))] = None
    anthropic_api_key: Annotated[Key | None, Field(validation_alias=_platform("ANTHROPIC_API_KEY"))] = None
    anthropic_base_url: Annotated[HttpUrl | None, Field(validation_alias=_platform("ANTHROPIC_BASE_URL"))] = None
    sentry_dsn: Annotated[Dsn | None, Field(validation_alias=_platform("SENTRY_DSN"))] = None

    secret: SecretStr = SecretStr("")
    """Signs the read tokens of `events_url`; at least 16 characters outside development."""

    credentials_key: SecretStr = SecretStr("")
    """Encrypts channels' credentials: 32 bytes in base64; several with commas, of which the first one encrypts."""
    erasure_key: SecretStr = SecretStr("")
    """Makes the hashes by which erased users are known; several with commas while it is replaced, the new one first.
    `secret` when not given."""
    public_url: Annotated[HttpUrl | None, Field(examples=["https://chat.example.com"])] = None
    """Scheme and host by which callers reach the ingress, where a proxy stands before it."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"

    # telemetry
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Where a worker serves /metrics and /health; the next free one when another has it. 0: nowhere."""
    metrics_token: Key | None = None
    """Opens /metrics to a scraper; an operator's API key opens those of ingress and console too."""
    trace_sample: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the messages whose way is recorded in Sentry."""

    # admission
    max_body_bytes: Positive = 262_144
    max_message_chars: Positive = 32_000
    max_queue_depth: Positive = 100_000
    """Never-started jobs of one queue; beyond it admission answers 503."""
    ttl_s: WholeSeconds = 600
    """A job not started by then expires."""
    max_ttl_s: WholeSeconds = 86_400
    idempotency_ttl_s: WholeSeconds = 86_400
    sdk_retry_ttl_s: WholeSeconds = 600
    """How long an SDK's own retry (no Idempotency-Key) finds the job of its first try."""
    global_per_min: Annotated[int, Field(gt=0, le=1_000_000)] = 10_000
    """Messages of all tenants together, but for those without limits; beyond it admission answers 429."""
    unauthorized_per_min: Annotated[int, Field(gt=0, le=1_000_000)] = 30
    """Requests without a valid API key of one client address; beyond it they get 429 instead of 401."""
    trusted_proxies: Networks = ""
    """Those whose `X-Forwarded-For` tells the client's address."""
    global_day_usd: Usd = "50"
    """What all tenants together may spend a day (UTC), but for those without limits."""
    global_month_usd: Usd = NONE
    long_poll_max_s: WholeSeconds = 60
    openai_wait_max_s: WholeSeconds = 120
    """A plain request in OpenAI's form is answered within this. An SDK tries it again, twice by default, and must find
    its job then."""
    sse_keepalive_s: Seconds = 15.0
    key_cache_ttl_s: Seconds = 1.0
    """A revoked key is refused everywhere within this time."""

    # the queue
    queue: Annotated[
        str,
        Field(
            pattern=r"^[a-z][a-z0-9-]{0,62}$",
            description="at most 63 of a-z, 0-9 and -, a letter first",
            examples=["default"],
        ),
    ] = "default"
    """The queue a worker process serves."""
    worker_concurrency: Positive = 1_000
    lease_s: Annotated[float, Field(ge=0.1, le=3_600)] = 4.0
    """A killed worker's jobs run elsewhere after at most this; the worker renews it every quarter."""
    drain_s: Annotated[float, Field(ge=0, le=DAY_S)] = 20.0
    """After SIGTERM: how long running jobs may finish before they are handed back."""
    max_attempts: Positive = 4
    retry_base_s: Seconds = 1.0
    retry_cap_s: Seconds = 30.0
    retry_horizon_s: Seconds = 120.0
    """A job holds its conversation for at most this long after its first start."""
    result_ttl_s: WholeSeconds = 3_600
    """How long results and events stay in Redis after the end; later polls are answered from Postgres."""
    max_events: Positive = 2_000
    """Events kept per job."""

    # models
    model_timeout_s: Seconds = 120.0
    model_idle_timeout_s: Seconds = 30.0
    """Longest silence between two pieces of a streamed reply."""
    max_tokens: Positive = 500
    degraded_reply: Annotated[
        str, Field(pattern=r"\S", max_length=2_000, description="none, or a text of at most 2000 characters")
    ] = DEGRADED_REPLY
    """What users are told when no model may or can answer; `none`: such a turn fails instead."""

    # context and memory
    context_tokens: Annotated[int, Field(ge=1_000, le=1_000_000)] = 8_000
    """The longest prompt, as the model that is asked counts it."""
    memory_models: Annotated[
        str,
        Field(
            pattern=r"^(openai|anthropic):[^,\s]+(,(openai|anthropic):[^,\s]+)*$",
            description="openai:<model> or anthropic:<model>, several with commas, the best first",
            examples=["openai:gpt-5.4-nano"],
        ),
    ] = "openai:gpt-5.4-nano,anthropic:claude-haiku-4-5"
    """Write summaries and find facts, beside the conversations."""
    memory_tasks: Annotated[int, Field(ge=0, le=100)] = 2
    """Summaries and extractions of facts under way in one worker; 0: it makes none."""

    # providers, all workers together
    openai_concurrency: Positive | None = None
    openai_rpm: Positive | None = None
    openai_tpm: Positive | None = None
    anthropic_concurrency: Positive | None = None
    anthropic_rpm: Positive | None = None
    anthropic_tpm: Positive | None = None
    provider_patience_s: Seconds = 2.0
    """Longest wait for a model that is paused or down before the next one of the agent's is asked."""
    breaker_failures: Annotated[int, Field(ge=0, le=1_000_000)] = 5
    breaker_window_s: Seconds = 30.0
    breaker_cooldown_s: Seconds = 10.0

    # deliveries and alerts
    delivery_concurrency: Positive = 200
    """Requests under way in one delivery process. A tenant has at most as many as are left: half, when alone."""
    delivery_per_receiver: Positive = 4
    """Requests under way to one receiver, in all delivery processes together: one that hangs holds up nobody else."""
    delivery_per_channel: Positive = 40
    """The same for one messenger's channel: each request is another conversation's."""
    delivery_timeout_s: Seconds = 15.0
    delivery_give_up_days: Days = 5
    """An endpoint that failed for so long without one success is disabled."""
    delivery_retention_days: Days = 30
    """Deliveries that ended are kept for so long, with the log of their attempts."""
    delivery_allow_private: bool = False
    """Callback URLs and endpoints may lead to private addresses and any port: for development and tests only."""
    channel_urls: ChannelUrls = ""
    """Where messengers' APIs are instead of at their providers, by kind: for stand-ins and proxies."""
    webhook_secret: SecretStr = SecretStr("")
    """Secrets that sign webhooks are derived from it; `secret` when not given. A change changes all of them."""
    smtp_url: SmtpUrl | None = None
    """Server that takes alerts by e-mail; none: nobody is told so. STARTTLS is required unless `starttls=false`."""
    alert_from: Annotated[
        str, Field(pattern=r"^[^@\s]+@[^@\s]+$", description="an e-mail address", examples=["switchboard@localhost"])
    ] = "switchboard@localhost"
    """Sender of e-mails."""

    # forgetting
    conversation_messages: Positive = 10_000
    """Messages kept of one conversation; the oldest go first."""
    user_conversations: Positive = 1_000
    """Conversations kept of one user; those that were silent for the longest go first."""

    # memory
    memory_writer: bool = True
    """Whether a delivery process takes what was said into memory, too; what nobody takes in waits."""

    # the response cache
    cache_ttl_s: Annotated[int, Field(ge=0, le=86_400)] = 300
    """How long an answer is given again to the same question, unless its tenant says otherwise. 0: no cache at all."""
    cache_stale_s: Annotated[int, Field(ge=0, le=604_800)] = 3_600
    """How long it is kept after that, for replies when no model can be asked."""
    cache_max_bytes: Annotated[int, Field(ge=1, le=10**13)] = 67_108_864
    """All kept answers together; the oldest make room."""
    cache_redis_url: RedisUrl | None = None
    """Where answers are kept; the Redis of the queue when not given."""

    # embeddings
    embedding_model: Annotated[
        str,
        Field(
            pattern=r"^(none|local:all-minilm-l6-v2|openai:"
            r"(text-embedding-(3-small|3-large|ada-002)|[^\s@]{1,200}@[1-9][0-9]{0,3}))$",
            description="none, local:all-minilm-l6-v2, or openai:<model>@<dimensions> (OpenAI's own need not say them)",
            examples=["openai:text-embedding-3-small"],
        ),
    ] = "openai:text-embedding-3-small"
    """What a new deployment searches memory by; `switchboard memory models` changes it later. `none`: by words only."""
    embedding_api_key: Key | None = None
    """Of the server that makes embeddings; OPENAI_API_KEY when not given."""
    embedding_base_url: HttpUrl | None = None
    """Of that server, which speaks OpenAI's embeddings; OPENAI_BASE_URL when not given."""
    embedding_deadline_ms: Positive = 150
    """How long a turn waits for the meaning of its question; then memory is searched by words only."""
    embedding_threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Processor threads that the local model may take in one process, beside one for questions."""
    embedding_cache_bytes: Annotated[int, Field(ge=0, le=10**12)] = 16_777_216
    """Vectors of texts seen in the last minutes, in each process. 0: none."""

    # Postgres
    db_pool_size: Annotated[int, Field(ge=1, le=1_000)] = 10
    db_prepared_statements: bool = True
    """`false` behind a PgBouncer in transaction mode that does not track them: before 1.21, or told not to."""

    def channel_base_urls(self) -> dict[str, str]:
        """`channel_urls` by kind, without a slash at the end."""
        return read_channel_urls(self.channel_urls)

    @classmethod
    def read(cls, overrides: Mapping[str, Any] | None = None) -> "Settings":
        """Settings from the environment; `overrides` win (field names). Raises ConfigError naming every fault."""
        settings, faults = cls.examine(overrides)
        if faults:
            raise ConfigError(summary(faults))
        return settings

    @classmethod
    def examine(cls, overrides: Mapping[str, Any] | None = None) -> "tuple[Settings, list[Fault]]":
        """The same, faults returned: what is wrong has its default then, for `switchboard doctor` to go on with."""
        given = dict(overrides or {})
        try:
            settings, faults = cls(**given), []
        except ValidationError as error:
            wrong = {_field_at(item["loc"][0]): item.get("input") for item in error.errors()}
            faults = [_fault(field, value) for field, value in wrong.items()]
            kept = {name: value for name, value in given.items() if _field_at(name) not in wrong}
            settings = cls(**kept, **{_given_as(field): cls.model_fields[field].default for field in wrong})
        named = {fault.name for fault in faults}
        faults += [fault for fault in _contradictions(settings) if fault.name not in named]
        return settings, faults


def environment_name(field: str) -> str:
    """The environment variable of a field: `PORT`, `SWITCHBOARD_TTL_S`, …"""
    alias = Settings.model_fields[field].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"{PREFIX}{field.upper()}"


def unknown_variables() -> list[str]:
    """A sentence for each `SWITCHBOARD_…` in the environment that no process reads: probably misspelt."""
    given = os.environ  # noqa: TID251 - this module is where the environment is read
    return unknown_names(given, map(environment_name, Settings.model_fields), PREFIX)


def _given_as(field: str) -> str:
    """The keyword that pydantic takes for a field."""
    alias = Settings.model_fields[field].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else field


def _field_at(location: object) -> str:
    """The field at the root of a fault: pydantic names it by its alias where it has one."""
    return next((field for field in Settings.model_fields if location in (field, _given_as(field))), str(location))


def _fault(field: str, value: object) -> Fault:
    return fault_of(environment_name(field), value, Settings.model_json_schema()["properties"][_given_as(field)])


def _contradictions(settings: Settings) -> list[Fault]:
    """Settings that are each allowed, but not together."""
    return [*_secrets(settings), *_open_ways(settings), *_disorder(settings)]


def _secrets(settings: Settings) -> Iterator[Fault]:
    """Too short, or no keys at all."""
    secret = settings.secret.get_secret_value()
    if settings.environment != "development" and len(secret) < MIN_SECRET_CHARS:
        words = f"at least {MIN_SECRET_CHARS} characters outside development"
        yield _contradicts("secret", secret, words, "$(openssl rand -hex 32)")
    signing = settings.webhook_secret.get_secret_value()
    if signing and settings.environment != "development" and len(signing) < MIN_SECRET_CHARS:
        words = f"empty, or at least {MIN_SECRET_CHARS} characters outside development"
        yield _contradicts("webhook_secret", signing, words, "$(openssl rand -hex 32)")
    erasure = settings.erasure_key.get_secret_value()
    if any(len(key.strip()) < MIN_SECRET_CHARS for key in erasure.split(",") if erasure):
        words = f"at least {MIN_SECRET_CHARS} characters, or several such with commas"
        yield _contradicts("erasure_key", erasure, words, "$(openssl rand -hex 32)")
    if not are_sealing_keys(sealing := settings.credentials_key.get_secret_value()):
        words = "32 bytes in base64, or several with commas"
        yield _contradicts("credentials_key", sealing, words, "$(openssl rand -base64 32)")


def _open_ways(settings: Settings) -> Iterator[Fault]:
    """What development may leave open, and production may not."""
    if settings.environment == "production" and settings.delivery_allow_private:
        words = "false in production: callers would reach the private network through their callback URLs"
        yield _contradicts("delivery_allow_private", "true", words, "false")
    plain = [url for url in settings.channel_base_urls().values() if not url.startswith("https://")]
    if settings.environment == "production" and plain:
        name = environment_name("channel_urls")
        yield Fault(name, plain[0], "https:// in production", "whatsapp=https://graph.example.org")


_ORDERED = (("ttl_s", "max_ttl_s"), ("retry_base_s", "retry_cap_s"))


def _disorder(settings: Settings) -> Iterator[Fault]:
    for low, high in _ORDERED:
        most = getattr(settings, high)
        if (value := getattr(settings, low)) > most:
            yield _contradicts(low, value, f"at most {environment_name(high)}={most}", f"{most}")
    most = settings.sdk_retry_ttl_s // 3
    if settings.openai_wait_max_s > most:
        words = f"at most a third of {environment_name('sdk_retry_ttl_s')}={settings.sdk_retry_ttl_s}"
        yield _contradicts("openai_wait_max_s", settings.openai_wait_max_s, words, f"{max(1, most)}")


def _contradicts(field: str, value: object, words: str, example: str) -> Fault:
    name = environment_name(field)
    return Fault(name, shown(name, value), words, example)
