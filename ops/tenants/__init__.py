"""Tenants, their settings and their keys, for the people who run them.

`document` says what a tenant may be given, `reach` what it may change itself, `books` keeps it. The console and the
command line (`switchboard tenants`, `switchboard keys`) are two faces of the same.
"""
