"""Asks the model twice for one reply."""

from agents.api import Agent, Context, Message, Prompt, Reply, Turn


class Thinker(Agent):
    id, label = "thinker", "Thinker"
    system_prompt = "Think first."
    history_messages = 0

    async def answer(self, turn: Turn, ctx: Context) -> Reply:
        thought = await ctx.complete(self.prompt(turn, ctx))
        messages = (Message("user", turn.text), Message("assistant", thought.text), Message("user", "and now answer"))
        answer = await ctx.complete(Prompt(self.system_prompt, messages, self.max_tokens or ctx.max_tokens))
        return Reply(answer.text)
