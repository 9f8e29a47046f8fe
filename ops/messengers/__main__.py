"""Write to a WhatsApp channel as one of its users would, and see what comes back.

`python -m ops.messengers CHANNEL TEXT --secret … --number …`, beside `switchboard dev`: its delivery process sends
replies to the stand-in, whose books are read here.
"""

import argparse
import hashlib
import hmac
import sys
import time
from typing import Any

import httpx
import msgspec

PATIENCE_S = 60.0
LOOK_EVERY_S = 0.1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.messengers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("channel", help="its id, as `switchboard channels create` printed it")
    parser.add_argument("text")
    parser.add_argument("--secret", required=True, help="the channel's app secret")
    parser.add_argument("--number", required=True, help="its phone_number_id")
    parser.add_argument("--user", default="16505551234", help="who writes")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the ingress")
    parser.add_argument("--standin", default="http://127.0.0.1:8002")
    asked = parser.parse_args(arguments)
    try:
        return _say(asked)
    except httpx.TransportError as error:
        print(f"cannot be reached: {error}", file=sys.stderr)
        return 1


def _say(asked: argparse.Namespace) -> int:
    hook = f"{asked.url}/v1/channels/{asked.channel}/webhook"
    with httpx.Client(trust_env=False, timeout=30) as client:
        told = {"url": hook, "secret": asked.secret, "statuses": ["sent", "delivered", "read"]}
        client.post(f"{asked.standin}/messengers/_hooks", json={asked.number: told}).raise_for_status()
        before = len(_served(client, asked.standin))
        message_id = f"wamid.{time.time_ns()}"
        body = _body(asked, message_id)
        mac = hmac.new(asked.secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"x-hub-signature-256": f"sha256={mac}", "content-type": "application/json"}
        answer = client.post(hook, content=body, headers=headers)
        if answer.status_code != 200:
            print(answer.text, file=sys.stderr)
            return 1
        print(f"you      {asked.text}", flush=True)
        return _listen(client, asked, before, message_id)


def _listen(client: httpx.Client, asked: argparse.Namespace, seen: int, message_id: str) -> int:
    """Until a message came and nothing more comes after it."""
    deadline_s, replied = time.monotonic() + PATIENCE_S, False
    while time.monotonic() < deadline_s:
        new = _served(client, asked.standin)[seen:]
        seen += len(new)
        for one in new:
            if one["kind"] == "working" and one["to"] == message_id:
                print("         read, and an answer is being written …", flush=True)
            elif one["kind"] == "message" and one["to"] == asked.user:
                print(
                    f"answer   {one['text']}" + ("" if one["outcome"] == "taken" else f"  [{one['outcome']}]"),
                    flush=True,
                )
                replied, deadline_s = True, time.monotonic() + 1.0
        time.sleep(LOOK_EVERY_S)
    if not replied:
        print(f"nothing came within {PATIENCE_S:.0f} s: see `switchboard deliveries list`", file=sys.stderr)
    return 0 if replied else 1


def _served(client: httpx.Client, standin: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{standin}/messengers/_served").raise_for_status().json()
    return found


def _body(asked: argparse.Namespace, message_id: str) -> bytes:
    message = {
        "from": asked.user,
        "id": message_id,
        "timestamp": str(int(time.time())),
        "type": "text",
        "text": {"body": asked.text},
    }
    metadata = {"display_phone_number": asked.number, "phone_number_id": asked.number}
    contact = {"profile": {"name": "You"}, "wa_id": asked.user}
    value = {"messaging_product": "whatsapp", "metadata": metadata, "contacts": [contact], "messages": [message]}
    entry = {"id": "WABA", "changes": [{"field": "messages", "value": value}]}
    return msgspec.json.encode({"object": "whatsapp_business_account", "entry": [entry]})


if __name__ == "__main__":
    sys.exit(main())
