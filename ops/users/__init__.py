"""A tenant's users, for the people who run it: who there is, everything that is held of one, and erasing one.

`erasing` is the engine, `books` and `flight` its two sides: what has happened (Postgres) and what is in flight (Redis).
"""
