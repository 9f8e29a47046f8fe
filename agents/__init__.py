"""What to say: one agent a file, found by `registry`, written against `api` alone.

Pure: no agent sees Redis, Postgres or a model SDK. A file dropped in here is an agent; one that starts with `_` is not.
"""
