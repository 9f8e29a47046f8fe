"""Messengers' requests over HTTP: of which channel, genuine or not, what they say, all of it queued before the 200."""
