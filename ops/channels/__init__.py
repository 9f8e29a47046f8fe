"""Channels and their credentials, for the people who run them.

`document` says what may be stored of a channel, `books` keeps it, credentials encrypted and never shown. The console
and the command line (`switchboard channels`) are two faces of the same.
"""
