"""Other people's verifiers take what we send: `standardwebhooks`, `svix`, and the `openai` SDK."""

import json

import asyncpg
import openai
import pytest
import standardwebhooks
import svix

from shared.config import Settings
from sql import queries
from tests.conftest import Eventually
from tests.delivery.conftest import TENANT, Owe, Running
from tests.delivery.receiver import Post, Receiver
from tests.delivery.test_webhooks import endpoint, secret_of


@pytest.fixture
async def post_and_secrets(
    settings: Settings,
    books: asyncpg.Connection,
    running: Running,
    owe: Owe,
    receiver: Receiver,
    eventually: Eventually,
) -> tuple[Post, list[str]]:
    """One real delivery while a rotation is under way, and both secrets."""
    made = await endpoint(books, receiver.url)
    await books.fetchval(queries["rotate_signing_secret"], TENANT, made, 3_600)
    async with running():
        await owe(None, reply="grüße 🦔")
        await eventually(lambda: receiver.posts)
    return receiver.posts[0], [await secret_of(settings, books, made, serial) for serial in (1, 2)]


async def test_each_package_accepts_it_with_either_secret(post_and_secrets: tuple[Post, list[str]]) -> None:
    post, secrets = post_and_secrets
    for secret in secrets:
        assert standardwebhooks.Webhook(secret).verify(post.body, dict(post.headers)) == post.json
        svix.Webhook(secret).verify(post.body, dict(post.headers))  # it returns nothing, and raises for what is wrong
        client = openai.OpenAI(api_key="sk-test", webhook_secret=secret)
        client.webhooks.verify_signature(post.body.decode(), dict(post.headers))
        unwrapped = client.webhooks.unwrap(post.body.decode(), dict(post.headers))
        assert unwrapped.type == "job.succeeded"


async def test_each_package_refuses_another_secret_and_another_body(
    post_and_secrets: tuple[Post, list[str]],
) -> None:
    post, (secret, _) = post_and_secrets
    stranger = "whsec_" + "A" * 43 + "="
    changed = json.dumps({**post.json, "sequence": 99}).encode()
    for key, body in ((stranger, post.body), (secret, changed)):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(key).verify(body, dict(post.headers))
        with pytest.raises(svix.WebhookVerificationError):
            svix.Webhook(key).verify(body, dict(post.headers))
        with pytest.raises(openai.InvalidWebhookSignatureError):
            openai.OpenAI(api_key="sk-test", webhook_secret=key).webhooks.unwrap(body.decode(), dict(post.headers))
