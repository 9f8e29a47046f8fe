"""The queue's figures, each beside stock arq in the same run: `python -m benchmarks`, or `make bench`.

A driver starts worker processes (`benchmarks.worker`) on an embedded Valkey of its own, feeds them and reads what they
say on standard output. The jobs do nothing or sleep: no Postgres, no model, so that the queue alone is measured.
"""
