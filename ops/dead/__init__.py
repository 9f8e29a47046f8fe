"""Dead jobs for those who run the product: look at them, retry them (changed or not), discard them.

Used by the command line and the console alike. Postgres knows the dead, Redis the living; `retry` is the one way from
the first to the second.
"""
