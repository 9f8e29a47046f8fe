"""WhatsApp's messages as the Cloud API takes them, its limits, and what its errors mean (Graph error codes).

Sources: Meta's Cloud API reference; pywa's table of errors; the grouping is ours (research/protocols.md §3).
"""

from collections.abc import Mapping
from typing import Any

from shared.channels.api import Outgoing, Refused, Sent, retry_after_s
from shared.channels.reading import Malformed, read_object

MAX_TEXT_UNITS = 4_096
MAX_PARAMETER_UNITS = 1_024
PAIR_INTERVAL_S, PAIR_BURST = 6.0, 45
"""To one user: a message every 6 s, of which 45 may be borrowed at once."""
WINDOW_S = 86_400
"""After a user's last message anything may be sent for so long; then only templates."""

LIMITED_PAIR = 131056
LIMITED = frozenset({4, 80007, 130429, LIMITED_PAIR})
RETRY = frozenset({1, 2, 131000, 131016, 131057, 133004})
PAUSE = frozenset({0, 10, 190, 368, 131005, 131031, 131042, 131048, 131064, *range(200, 300)})
"""The number or the account: token, rights, payment, spam."""
TEMPLATE = 131047
"""The user last wrote more than 24 h ago."""
GATEWAYS = frozenset({502, 504})
"""Without an error of Meta's own: something before it answered, and may have handed the message on."""


def address_of(details: Mapping[str, Any]) -> str:
    """By phone number, else by business-scoped id."""
    return str(details.get("to") or details["recipient"])


def text_of(outgoing: Outgoing) -> dict[str, Any]:
    body = {**_head(outgoing), "type": "text", "text": {"body": outgoing.text, "preview_url": False}}
    if outgoing.first and (quoted := outgoing.details.get("message_id")):
        body["context"] = {"message_id": quoted}
    return body


def template_of(outgoing: Outgoing, settings: Any) -> dict[str, Any]:
    template: dict[str, Any] = {"name": settings.template_name, "language": {"code": settings.template_language}}
    if settings.template_text:
        template["components"] = [{"type": "body", "parameters": [{"type": "text", "text": outgoing.text}]}]
    return {**_head(outgoing), "type": "template", "template": template}


def reading_of(message_id: str) -> dict[str, Any]:
    return {
        "messaging_product": "whatsapp",
        "status": "read",
        "message_id": message_id,
        "typing_indicator": {"type": "text"},
    }


def judged(status: int, headers: Mapping[str, str], body: bytes) -> Sent | Refused:
    try:
        answer = read_object(body)
    except Malformed:
        answer = {}
    if 200 <= status < 300:
        sent = next((each for each in answer.get("messages") or [] if isinstance(each, dict)), {})
        return Sent(message_id=sent.get("id"))
    error = answer.get("error")
    fault: dict[str, Any] = error if isinstance(error, dict) else {}
    code = fault.get("code")
    details = fault.get("error_data")
    words = details.get("details") if isinstance(details, dict) else None
    return Refused(
        verdict=_verdict(code if isinstance(code, int) else None, status),
        code=str(code if isinstance(code, int) else status),
        message=str(words or fault.get("message") or f"HTTP {status}"),
        after_s=retry_after_s(headers),
        everyone=code != LIMITED_PAIR,
    )


def _verdict(code: int | None, status: int) -> Any:
    if code is None:
        if status in GATEWAYS:
            return "unknown"
        return "limited" if status == 429 else "retry" if status >= 500 or status == 408 else "permanent"
    for verdict, codes in (("limited", LIMITED), ("retry", RETRY), ("pause", PAUSE), ("template", {TEMPLATE})):
        if code in codes:
            return verdict
    return "permanent"


def _head(outgoing: Outgoing) -> dict[str, Any]:
    phone = outgoing.details.get("to")
    address = {"to": phone} if phone else {"recipient": outgoing.details["recipient"]}
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **address,
        "biz_opaque_callback_data": outgoing.reference,
    }
