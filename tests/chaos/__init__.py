"""Chaos: real processes under load while they, their servers and their connections fail; then the books must agree.

`python -m tests.chaos --jobs N --conversations N --faults N --seed S [--calm SECONDS]` or `make chaos ARGS=…`.
"""
