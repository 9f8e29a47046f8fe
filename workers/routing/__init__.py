"""Which model answers a call: who is asked in which order, what stands in the way, and waiting for it."""
