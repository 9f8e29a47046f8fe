"""OpenAI's API in front of the same queue: an unmodified `openai` SDK is a client, a model's name is an agent's id.

`params` and `said` read requests, `responses`, `chat` and `models` are the routes, `shapes` shows jobs, `stream` and
`chunks` their events, `errors` refusals. What is accepted, ignored and refused: docs/openai.md.
"""
