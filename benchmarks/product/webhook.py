"""How long a messenger waits for 200, at a steady load: WhatsApp's webhook, signed, one new message a request.

Open loop: a request that starts late counts from when it should have started. 200 means that the message is in Redis.
Meta wants a median of at most 250 ms, and less than 1 % above a second.
"""

import hashlib
import hmac
import itertools
from base64 import b64encode

import asyncpg
import msgspec

from benchmarks.figure import Figure, Goal
from benchmarks.product.deployment import FIRST_CORE, Deployment, free_port, open_deployment
from benchmarks.product.http import Client, on_time
from benchmarks.product.turn import percentile
from benchmarks.rig import Rig
from benchmarks.subject import Subject
from shared.db import jsonb
from shared.sealing import Sealer, credentials_about
from sql import queries

PER_S = 300
CHANNEL, NUMBER, SECRET = "ch-benchmark0000000", "106540352242922", b"a secret of benchmarks"
KEY = b64encode(b"b" * 32).decode()
_numbers = itertools.count(1)


async def webhook(rig: Rig) -> list[Figure]:
    async with open_deployment(rig) as deployment:
        await _connect(deployment)
        found = [await _latencies(deployment) for _ in range(rig.scale.rounds)]
    return [
        Figure(
            name=f"WhatsApp's webhook answered at {PER_S} messages/s, {name}",
            subject=Subject.TURNS,
            unit="ms",
            ours=[percentile(one, share) for one in found],
            goal=Goal("value", limit_ms),
            note="Meta's own bounds",
        )
        for name, share, limit_ms in (("p50", 0.5, 250), ("p99", 0.99, 1_000))
    ]


async def _connect(deployment: Deployment) -> None:
    """A channel of the development tenant, which has no limits."""
    credentials = {"app_secrets": [SECRET.decode()], "verify_token": "x"}
    sealed = Sealer(KEY).seal(msgspec.json.encode(credentials), about=credentials_about("dev", CHANNEL))
    document = {
        "kind": "whatsapp",
        "name": "benchmark",
        "agent": "support",
        "domain": None,
        "feature": None,
        "settings": {"phone_number_id": NUMBER},
        "held": {},
    }
    operator = await asyncpg.connect(deployment.postgres.dsn("switchboard_ops"))
    await operator.execute(queries["create_channel"], "dev", CHANNEL, jsonb(document), sealed, "benchmark")
    await operator.close()


async def _latencies(deployment: Deployment) -> list[float]:
    port = free_port()
    await deployment.clear()
    ingress = deployment.ingress(port, SWITCHBOARD_CREDENTIALS_KEY=KEY)
    async with ingress.running(FIRST_CORE):
        client = Client(port)

        async def once(_number: int) -> None:
            answer = await client.fetch(_request())
            assert answer.status == 200, answer

        await on_time(once, per_s=PER_S, seconds=deployment.rig.scale.warm_s)
        found = await on_time(once, per_s=PER_S, seconds=deployment.rig.scale.load_s)
        client.close()
    return found


def _request() -> bytes:
    number = next(_numbers)
    message = {"from": f"1650{number % 997}", "id": f"wamid.{number}", "timestamp": "1749416383", "type": "text"}
    metadata = {"display_phone_number": "1", "phone_number_id": NUMBER}
    value = {
        "messaging_product": "whatsapp",
        "metadata": metadata,
        "messages": [{**message, "text": {"body": "Hello"}}],
    }
    entry = {"id": "WABA", "changes": [{"field": "messages", "value": value}]}
    body = msgspec.json.encode({"object": "whatsapp_business_account", "entry": [entry]})
    mac = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    request = (
        f"POST /v1/channels/{CHANNEL}/webhook HTTP/1.1\r\nhost: bench\r\nx-hub-signature-256: sha256={mac}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return request.encode() + body
