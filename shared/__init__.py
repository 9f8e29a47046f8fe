"""What ingress and workers must agree on: settings, keys, scripts, wire types, job states, errors.

Membership test: a module lives here only while both ingress and workers reach it. `ops` may use all of it.
"""
