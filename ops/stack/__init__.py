"""The parts of the development stack: embedded servers, child processes, and what holds them together.

`ops.dev` composes them into `switchboard dev`; the test fixtures use the servers directly. Nothing here is imported by
a process in production, except `schema` by `switchboard migrate`.
"""
