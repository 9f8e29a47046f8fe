"""The one way to Redis.

`connect` makes a redis-py client, for pub/sub, blocking pops, INFO and arq. `Commands` is what scripts and readers use:
one connection on which any number of commands are under way. Its callers see `Unavailable`, not redis-py's classes.
"""

from shared.redis.check import check_server
from shared.redis.client import COMMAND_TIMEOUT_S, connect
from shared.redis.commands import Commands
from shared.redis.replies import Argument, unavailable

__all__ = ["COMMAND_TIMEOUT_S", "Argument", "Commands", "check_server", "connect", "unavailable"]
