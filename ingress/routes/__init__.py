"""One function per path: authenticate, parse, make one call, respond."""
