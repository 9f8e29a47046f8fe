"""Meaning as numbers: models that turn texts into vectors, the loop that embeds what memory owes, and the query's way.

`api` says what an embedder is; `local`, `openai` are two; `catalog` opens the one a name means. `writer` embeds what is
owed, many jobs' texts in one call; `query` embeds a question within a deadline; `upkeep` moves memory to another model.
"""
