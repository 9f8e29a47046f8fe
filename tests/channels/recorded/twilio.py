"""Twilio's, with the parameters that its webhooks have for messages of WhatsApp."""

from tests.channels.providers import PROVIDERS
from tests.channels.recorded.post import SLOW, Post

_TWILIO_USER = "whatsapp:+16315551234"


def _form(n: int, body: str, *media: str, **more: str) -> dict[str, str]:
    sid = f"SM{n:032x}"
    files = {
        f"MediaUrl{place}": f"https://api.twilio.com/2010-04-01/Accounts/AC1/Media/ME{place}"
        for place in range(len(media))
    }
    return {
        "SmsMessageSid": sid,
        "SmsSid": sid,
        "MessageSid": sid,
        "AccountSid": "AC1",
        "ApiVersion": "2010-04-01",
        "SmsStatus": "received",
        "NumSegments": "1",
        "ReferralNumMedia": "0",
        "NumMedia": str(len(media)),
        "ProfileName": "Zoë",
        "WaId": "16315551234",
        "From": _TWILIO_USER,
        "To": PROVIDERS["twilio"].settings["number"],
        "Body": body,
        **files,
        **{f"MediaContentType{place}": mime_type for place, mime_type in enumerate(media)},
        **more,
    }


def posts() -> list[Post]:
    told = [
        (_form(1, f"Grüße & 😀, {SLOW}"), f"Grüße & 😀, {SLOW}"),
        (_form(2, "Is this it?", "image/jpeg"), "[image that you cannot see] Is this it?"),
        (_form(3, "", "audio/ogg"), "[audio that you cannot hear]"),
        (_form(4, "", "application/pdf"), "[document that you cannot open]"),
        (_form(5, "", "text/vcard"), "[contact card that you cannot open]"),
        (_form(6, "", Latitude="52.5", Longitude="13.4", Address="Main St"), "[location] 52.5, 13.4"),
        (_form(7, "Yes", ButtonText="Yes", ButtonPayload="yes-1", MessageType="button"), "Yes"),
    ]
    status = {"MessageSid": "SMnone", "SmsSid": "SMnone", "AccountSid": "AC1", "ApiVersion": "2010-04-01"}
    more = {"MessageStatus": "delivered", "SmsStatus": "delivered", "To": _TWILIO_USER, "From": "whatsapp:+15550001"}
    return [*(Post(form, ((_TWILIO_USER, text),)) for form, text in told), Post(status | more)]
