"""The one way to Redis.

`connect` makes a redis-py client, for pub/sub, INFO and arq. `Commands` is what scripts and readers use: one connection
on which any number of commands are under way. `open_line` is for what blocks, or is told unasked. Callers of both see
`Unavailable`, not redis-py's classes.
"""

from shared.redis.check import check_server
from shared.redis.client import COMMAND_TIMEOUT_S, connect
from shared.redis.commands import Commands
from shared.redis.line import Line, open_line
from shared.redis.replies import Argument, unavailable

__all__ = ["COMMAND_TIMEOUT_S", "Argument", "Commands", "Line", "check_server", "connect", "open_line", "unavailable"]
