"""Channels: the messengers that people write from. One adapter a file, found by `registry`; `api` says what one is."""
