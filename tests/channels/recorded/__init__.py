"""What providers really send, field for field, as conversations: each request, and what the agent hears of whom by it.

The shapes are the providers' own; the people and the words are ours. A conversation says nothing twice, so that a
message that was sent again can be told from the next one.
"""

from tests.channels.recorded import slack, telegram, twilio, whatsapp
from tests.channels.recorded.post import SLOW, Post

__all__ = ["SLOW", "Post", "heard", "posts"]
_OF = {"slack": slack, "telegram": telegram, "twilio": twilio, "whatsapp": whatsapp}


def posts(kind: str) -> list[Post]:
    return _OF[kind].posts()


def heard(kind: str) -> dict[str, list[str]]:
    """By whom the reply goes to."""
    found: dict[str, list[str]] = {}
    for post in posts(kind):
        for peer, text in post.said:
            found.setdefault(peer, []).append(text)
    return found
