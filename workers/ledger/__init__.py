"""What model calls cost: tokens counted offline, prices in nano-USD, one row per call.

`tokens` counts, `prices` charges, `book` keeps the rows of one attempt. Nothing here does I/O after start; the turn
takes rows to Redis and Postgres.
"""
