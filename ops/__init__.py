"""For the people who run Switchboard: the command line, the development stack, the stand-in models.

The outermost layer: it may import everything, nothing imports it but tests. No process needs more of it in production
than `cli`, `serve` and `stack.schema`.
"""
