"""HTTP in, one Redis round trip, HTTP out: the thin front of the queue.

`app` puts it together, `routes/` has a function per path, `problems` turns every error into an answer. No model SDK,
no agent logic, and Postgres only for what Redis does not know.
"""
