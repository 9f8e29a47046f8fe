"""The providers behind `agents.api.ChatModel`: each call streamed, bounded in time, its errors translated once.

`catalog` opens those that have a key, `openai` and `anthropic` speak their protocols, `errors` is the one translator,
`transport` carries the bytes. Nothing here retries: when to try again is the turn's decision.
"""
