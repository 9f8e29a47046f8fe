"""`switchboard doctor`: what is missing or wrong in a deployment, and how to mend it.

A check is a small async function from `Servers` to findings. All of them run, none stops the others (`examination.py`).
Nothing is written but an expiring probe, and no secret leaves this package.
"""
