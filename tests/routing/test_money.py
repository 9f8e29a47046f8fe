"""Budgets choose models, too: a fallback is held anew, and a budget that is nearly spent is left to the cheap ones."""

import msgspec

from tests.routing.conftest import ANTHROPIC, OPENAI, calls_of
from tests.turn.deployment import TENANT, Deployment


async def test_a_fallback_that_does_not_fit_the_budget_is_not_asked(deployment: Deployment) -> None:
    """The budget is asked for the model that is called, not for the one that was wanted."""
    await deployment.give(conversation_usd="0.0045")
    await deployment.behave({"model": OPENAI, "faults": [{"status": 500, "times": 9}]}, {"model": ANTHROPIC})
    async with deployment.worker(degraded_reply="none"):
        record = await deployment.ended(await deployment.say("hello"))
        asked = {model: len(await calls_of(deployment, model)) for model in (OPENAI, ANTHROPIC)}
        await deployment.give(conversation_usd="1")
        rich = await deployment.ended(await deployment.say("hello", conversation="rich"))
    assert (record.state, asked[ANTHROPIC]) == ("dead", 0)
    assert asked[OPENAI] > 0
    assert {(row["model"], row["cost_nano_usd"]) for row in await deployment.rows("llm_calls", record.id)} == {
        (OPENAI, 0)
    }
    assert [row["model"] for row in await deployment.rows("llm_calls", rich.id)] == [OPENAI, ANTHROPIC]
    assert rich.state == "succeeded"
    await deployment.check_money()


async def test_from_the_downgrade_share_on_a_cheaper_model_is_asked(deployment: Deployment) -> None:
    budgets = {f"{name}_usd": "none" for name in ("user_month", "tenant_month", "day")}
    await _settle(
        deployment,
        agents={"support": {"models": [f"anthropic:{ANTHROPIC}", f"openai:{OPENAI}"]}},
        budgets={**budgets, "tenant_month_tokens": "none", "conversation_usd": "0.02", "warn": 0.1, "downgrade": 0.1},
    )
    await deployment.behave({"output_tokens": 450})
    models = []
    async with deployment.worker():
        for conversation in ("c1", "c1", "other"):
            record = await deployment.ended(await deployment.say("hello", conversation=conversation))
            assert (record.state, record.degraded) == ("succeeded", None)
            models += [row["model"] for row in await deployment.rows("llm_calls", record.id)]
    assert models == [ANTHROPIC, OPENAI, ANTHROPIC]
    await deployment.check_money()


async def _settle(deployment: Deployment, **document: object) -> None:
    text = msgspec.json.encode(document).decode()
    await deployment.books.execute("UPDATE tenants SET settings = $2 WHERE tenant_id = $1", TENANT, text)
