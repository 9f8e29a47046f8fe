"""Whole turns: from an accepted message to its one committed end, with workers killed, frozen, drained and cut off."""
