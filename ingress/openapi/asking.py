"""What the routes that take a message have in common: how a repeat is told, and what the limits say."""

from ingress.openapi.describe import Header, Parameter, Schema

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "string", "pattern": "^[0-9]+$"}
RATES = {
    name: Header(description=description, schema=schema, always=False)
    for name, description, schema in (
        (
            "RateLimit-Policy",
            "Each of the tenant's windows: messages (`q`) in so many seconds (`w`). "
            "The deployment's is named while it is full. Not for tenants without limits.",
            _TEXT,
        ),
        ("RateLimit", "The tightest window: what is left (`r`), and after how many seconds it is more (`t`).", _TEXT),
        ("X-RateLimit-Limit", "Messages that the tightest window holds.", _COUNT),
        ("X-RateLimit-Remaining", "Messages it has room for.", _COUNT),
        ("X-RateLimit-Reset", "Seconds until it has room for one more.", _COUNT),
    )
}
IDEMPOTENCY_KEY = Parameter(
    name="Idempotency-Key",
    where="header",
    description="Makes a retry safe. 1 to 255 visible ASCII characters, bare or as a quoted string.",
    schema={"type": "string", "pattern": r'^(?:[!#-~][!-~]{0,254}|"(?:[ !#-\[\]-~]|\\["\\]){1,255}")$'},
)
RETRY_COUNT = Parameter(
    name="X-Stainless-Retry-Count",
    where="header",
    description="Sent by SDKs: more than `0` marks a retry, which is recognised without a key by its body.",
    schema=_TEXT,
)
REPLAYED = Header(description="This is a repeat.", schema={"const": "true"})
