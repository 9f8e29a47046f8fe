"""Side effects and wiring: the queue, the chat turn, models, the ledger, maintenance."""
