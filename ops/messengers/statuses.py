"""What becomes of messages, told to our webhook as the providers tell it: signed, and after the answer unless asked."""

import hashlib
import hmac
import time
from base64 import b64encode
from urllib.parse import urlencode

import httpx
import msgspec

from ops.messengers.books import Books, Entry
from ops.messengers.providers import Wire, Wish


class Teller:
    """Raises nothing: a webhook that does not answer is the product's to explain."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def tell(self, wire: Wire, wish: Wish, entry: Entry, failure: int | str | None = None) -> None:
        """All statuses of one message, or that it failed."""
        states = ("failed",) if failure is not None else None
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            if entry.provider == "whatsapp":
                hook = self._books.hooks.get(wire.path["number"])
                for state in (states or hook.statuses) if hook else ():
                    await self._whatsapp(client, hook.url, hook.secret, wire, entry, state, failure)  # type: ignore[union-attr]
            elif entry.provider == "twilio" and wish.status_url:
                for state in states or ("sent", "delivered"):
                    await self._twilio(client, wire, wish, entry, state, failure)

    async def _whatsapp(
        self,
        client: httpx.AsyncClient,
        url: str,
        secret: str,
        wire: Wire,
        entry: Entry,
        state: str,
        failure: int | str | None,
    ) -> None:
        status = {
            "id": entry.id,
            "status": state,
            "timestamp": str(int(time.time())),
            "recipient_id": entry.to,
            **({"biz_opaque_callback_data": entry.reference} if entry.reference else {}),
            **({"errors": [{"code": failure, "title": "Message undeliverable"}]} if failure is not None else {}),
        }
        metadata = {"display_phone_number": "1", "phone_number_id": wire.path["number"]}
        value = {"messaging_product": "whatsapp", "metadata": metadata, "statuses": [status]}
        entry_of = {"id": "WABA", "changes": [{"field": "messages", "value": value}]}
        body = msgspec.json.encode({"object": "whatsapp_business_account", "entry": [entry_of]})
        mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"x-hub-signature-256": f"sha256={mac}", "content-type": "application/json"}
        await _posted(client, url, body, headers)

    async def _twilio(
        self, client: httpx.AsyncClient, wire: Wire, wish: Wish, entry: Entry, state: str, failure: int | str | None
    ) -> None:
        form = {"MessageSid": str(entry.id), "MessageStatus": state, "To": entry.to, "AccountSid": wire.path["account"]}
        if failure is not None:
            form |= {"ErrorCode": str(failure)}
        url = wish.status_url or ""
        text = url + "".join(name + form[name] for name in sorted(form))
        mac = hmac.new(wish.secret.encode(), text.encode(), hashlib.sha1).digest()
        headers = {"x-twilio-signature": b64encode(mac).decode(), "content-type": "application/x-www-form-urlencoded"}
        await _posted(client, url, urlencode(form).encode(), headers)


async def _posted(client: httpx.AsyncClient, url: str, body: bytes, headers: dict[str, str]) -> None:
    try:
        await client.post(url, content=body, headers=headers)
    except httpx.TransportError as error:
        print(f"status not taken by {url}: {error}", flush=True)
