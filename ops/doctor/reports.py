"""Whether anybody would hear of an error."""

from ops.doctor.findings import Finding, ok, warning
from ops.doctor.servers import Servers


async def check_reports(servers: Servers) -> list[Finding]:
    settings, name = servers.settings, "reports"
    if settings.sentry_dsn is not None:
        return [ok(name, f"errors go to Sentry, and {settings.trace_sample:.0%} of the traces")]
    if settings.trace_sample > 0:
        what = f"SWITCHBOARD_TRACE_SAMPLE={settings.trace_sample:g} does nothing without SENTRY_DSN"
        return [warning(name, what, "SENTRY_DSN=https://key@o1.ingest.sentry.io/2")]
    if settings.environment == "production":
        return [
            warning(name, "errors are only logged: SENTRY_DSN is not set", "SENTRY_DSN=https://key@…, or read the log")
        ]
    return [ok(name, "errors are logged")]
