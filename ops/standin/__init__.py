"""Stand-in model server: speaks OpenAI's and Anthropic's wire protocols without a model behind them.

A process of its own (`python -m ops.standin`), reached with the real SDKs over HTTP, by the development stack, the
tests and the benchmarks. Its replies are derived from the conversation it was sent, its behaviour is set from outside
(`/_behaviour`) and it keeps books of what it served (`/_served`), so that a ledger can be compared with them.
"""
