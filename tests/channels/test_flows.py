"""The Flows endpoint, called as a phone does: encrypted by Meta's scheme, written here anew."""

import asyncio
import hashlib
import hmac
import json
import os
import threading
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agents.api import Agent, FlowOver, FlowStep, Screen
from ingress.channels import flows
from ops.channels.books import ChannelBooks
from shared.config import Settings
from tests.channels.conftest import Connect, Line, give
from tests.conftest import PATIENCE_S, Database
from tests.ingress.harness import Running

META_SECRET = "meta-secret"
OAEP = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)


class Booking(Agent):
    """Asks for a day, then for an hour; a full day is said to be full."""

    id, label, system_prompt = "booking", "Booking", "You book tables."

    def flow(self, step: FlowStep) -> Screen | FlowOver:
        if step.token == "used-up":
            return FlowOver("This table is booked already.")
        if step.action in {"INIT", "BACK"}:
            return Screen("DAY", {"days": ["Mon"], "whose": step.tenant})
        if step.data.get("day") == "never":
            raise RuntimeError("the author's mistake")
        return Screen("SUCCESS", {"extension_message_response": {"params": {"day": step.data["day"]}}})


@dataclass
class Phone:
    """A phone with the form open, and Meta between it and us."""

    line: Line
    public_key: rsa.RSAPublicKey
    key: bytes = b""
    vector: bytes = b""

    def sealed(self, asked: Any) -> bytes:
        self.key, self.vector = os.urandom(16), os.urandom(16)
        data = AESGCM(self.key).encrypt(self.vector, json.dumps(asked).encode(), None)
        envelope = {
            "encrypted_flow_data": b64encode(data).decode(),
            "encrypted_aes_key": b64encode(self.public_key.encrypt(self.key, OAEP)).decode(),
            "initial_vector": b64encode(self.vector).decode(),
        }
        return json.dumps(envelope).encode()

    async def ask(self, asked: Any, *, secret: str = META_SECRET) -> httpx.Response:
        return await self.send(self.sealed(asked), secret=secret)

    async def send(self, body: bytes, *, secret: str = META_SECRET) -> httpx.Response:
        mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"x-hub-signature-256": f"sha256={mac}"}
        return await self.line.client.post(f"/v1/channels/{self.line.channel_id}/flows", content=body, headers=headers)

    def opened(self, response: httpx.Response) -> Any:
        flipped = bytes(255 - byte for byte in self.vector)
        return json.loads(AESGCM(self.key).decrypt(flipped, b64decode(response.content), None))


def private(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture(scope="module")
def keys() -> list[rsa.RSAPrivateKey]:
    return [rsa.generate_private_key(65537, 2048) for _ in range(3)]


@pytest.fixture
async def phone(
    running: Running, connect_line: Connect, books: ChannelBooks, keys: list[rsa.RSAPrivateKey], monkeypatch
) -> Phone:
    """Its channel has two keys: the newer one, and the one this phone still knows."""
    monkeypatch.setattr(books, "_agents", frozenset({"booking"}))
    object.__setattr__(running.ingress, "agents", {"booking": Booking()})
    line = await connect_line("whatsapp", agent="booking")
    for key in (keys[1], keys[0]):
        await books.rotate("a", line.channel_id, {"flow_keys": private(key)}, 1, "tests")
    return Phone(line, keys[1].public_key())


def step(action: str, **more: Any) -> dict[str, Any]:
    return {"version": "3.0", "action": action, "flow_token": "whatsapp:1650:42", **more}


async def test_ping_is_answered(phone: Phone) -> None:
    response = await phone.ask({"version": "3.0", "action": "ping"})
    assert response.status_code == 200, response.text
    assert phone.opened(response) == {"data": {"status": "active"}}


async def test_a_form_from_its_first_screen_to_its_end(phone: Phone) -> None:
    first = phone.opened(await phone.ask(step("INIT")))
    assert first == {"screen": "DAY", "data": {"days": ["Mon"], "whose": "a"}}
    done = phone.opened(await phone.ask(step("data_exchange", screen="DAY", data={"day": "Mon"})))
    assert done["screen"] == "SUCCESS"
    assert done["data"]["extension_message_response"] == {"params": {"day": "Mon"}}
    assert phone.opened(await phone.ask(step("BACK", screen="HOUR")))["screen"] == "DAY"


async def test_a_fault_that_the_phone_reports_is_acknowledged(phone: Phone) -> None:
    told = step("INIT", data={"error": "invalid-screen-transition", "error_message": "…"})
    assert phone.opened(await phone.ask(told)) == {"data": {"acknowledged": True}}


async def test_a_phone_with_an_unknown_key_is_sent_to_fetch_ours(phone: Phone, keys: list[rsa.RSAPrivateKey]) -> None:
    for public_key, status in ((keys[0].public_key(), 200), (keys[2].public_key(), 421)):
        phone.public_key = public_key
        assert (await phone.ask(step("INIT"))).status_code == status


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"encrypted_flow_data":"!","encrypted_aes_key":"","initial_vector":""}']
)
async def test_what_is_no_envelope_cannot_be_decrypted(phone: Phone, body: bytes) -> None:
    assert (await phone.send(body)).status_code == 421


async def test_an_envelope_that_was_changed_cannot_be_decrypted(phone: Phone) -> None:
    envelope = json.loads(phone.sealed(step("INIT")))
    data = bytearray(b64decode(envelope["encrypted_flow_data"]))
    data[0] ^= 1
    envelope["encrypted_flow_data"] = b64encode(data).decode()
    assert (await phone.send(json.dumps(envelope).encode())).status_code == 421


async def test_what_meta_did_not_sign_is_432(phone: Phone) -> None:
    response = await phone.ask(step("INIT"), secret="guess")
    assert (response.status_code, response.content) == (432, b"")


async def test_a_form_that_is_over_is_427_and_says_why(phone: Phone) -> None:
    response = await phone.ask({**step("INIT"), "flow_token": "used-up"})
    assert response.status_code == 427
    assert phone.opened(response) == {"error_msg": "This table is booked already."}


@pytest.mark.parametrize("wrong", [{"flow_token": None}, {"action": "dance"}, {"action": 7}, {"data": "x"}])
async def test_a_step_that_is_none_ends_the_form(phone: Phone, wrong: dict[str, Any]) -> None:
    response = await phone.ask({**step("INIT"), **wrong})
    assert response.status_code == 427
    assert "cannot be continued" in phone.opened(response)["error_msg"]


async def test_a_person_has_a_limit_of_its_own(phone: Phone, with_keys: Database) -> None:
    await give(with_keys, rates={"flows_user_per_min": 2})
    statuses = [(await phone.ask(step("INIT"))).status_code for _ in range(3)]
    other_form = {**step("INIT"), "flow_token": "whatsapp:1650:43"}
    statuses.append((await phone.ask(other_form)).status_code)
    other_person = {**step("INIT"), "flow_token": "whatsapp:1651:42"}
    statuses.append((await phone.ask(other_person)).status_code)
    assert statuses == [200, 200, 429, 429, 200]
    assert (await phone.ask({"version": "3.0", "action": "ping"})).status_code == 200


async def test_the_limit_is_twenty_a_minute(phone: Phone, with_keys: Database) -> None:
    await give(with_keys)
    statuses = [(await phone.ask(step("INIT"))).status_code for _ in range(21)]
    assert statuses == [200] * 20 + [429]


async def test_a_key_that_was_taken_away_opens_nothing_more(
    phone: Phone, books: ChannelBooks, keys: list[rsa.RSAPrivateKey]
) -> None:
    """Rotated once more: the newest and the one before it are left, this phone's is the third."""
    await books.rotate("a", phone.line.channel_id, {"flow_keys": private(keys[2])}, 1, "tests")
    answers = []
    for key in (keys[2], keys[0], keys[1]):
        phone.public_key = key.public_key()
        answers.append((await phone.ask(step("INIT"))).status_code)
    assert answers == [200, 200, 421]


async def test_an_agents_mistake_is_a_500_without_internals(phone: Phone) -> None:
    response = await phone.ask(step("data_exchange", data={"day": "never"}))
    assert response.status_code == 500
    assert "mistake" not in response.text


async def test_an_agent_that_takes_too_long_is_503(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "ANSWER_S", 1e-6)
    assert (await phone.ask(step("INIT"))).status_code == 503


async def test_agents_that_hang_keep_no_thread_from_others(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of servers are resolved in the loop's own threads: a form that hangs must not stand in their way."""
    go_on = threading.Event()
    loop_threads = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(loop_threads)
    with monkeypatch.context() as patched:
        patched.setattr(flows, "ANSWER_S", 0.05)
        patched.setattr(Booking, "flow", lambda *_: go_on.wait(2 * PATIENCE_S))
        statuses = [(await phone.ask(step("INIT"))).status_code for _ in range(2)]
        try:
            assert statuses == [503, 503]
            async with asyncio.timeout(PATIENCE_S):
                assert await asyncio.to_thread(lambda: "free") == "free"
        finally:
            go_on.set()


async def test_an_agent_without_forms_says_so(
    whatsapp: Line, books: ChannelBooks, keys: list[rsa.RSAPrivateKey]
) -> None:
    await books.rotate("a", whatsapp.channel_id, {"flow_keys": private(keys[0])}, 1, "tests")
    phone = Phone(whatsapp, keys[0].public_key())
    response = await phone.ask(step("INIT"))
    assert response.status_code == 427
    assert "not available" in phone.opened(response)["error_msg"]


async def test_a_channel_without_keys_or_of_another_kind_has_no_forms(
    connect_line: Connect, settings: Settings
) -> None:
    for kind in ("whatsapp", "slack"):
        line = await connect_line(kind)
        response = await line.client.post(f"/v1/channels/{line.channel_id}/flows", content=b"{}")
        assert response.status_code == 404
