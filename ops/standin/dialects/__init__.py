"""The wire formats the stand-in speaks, one file each: what a provider's SDK sends and what it expects back.

Each reads a request into an `Ask` and writes an `Answer`; none knows of faults, pace or books.
"""
