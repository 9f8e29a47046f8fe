"""How far books can see: a pool's role is bound to one tenant at a time, or sees all of them (switchboard_ops).

Books that can be asked about one tenant or about all are `RoleBooks`; `tenant` None means all.
"""

from shared.db import Pool
from shared.errors import ConfigError
from sql import queries


async def sees_all_tenants(pool: Pool) -> bool:
    return bool(await pool.fetchval(queries["sees_all_tenants"]))


class RoleBooks:
    def __init__(self, pool: Pool, *, sees_all: bool) -> None:
        self._pool = pool
        self.sees_all = sees_all

    def check_reach(self, tenant: str | None) -> None:
        """Raises ConfigError rather than show one tenant's view, which would be empty, as everybody's; what belongs to
        the deployment is not one tenant's either."""
        if tenant is None and not self.sees_all:
            raise ConfigError(
                "this database role sees one tenant at a time: name the tenant, "
                "or set SWITCHBOARD_OPS_DATABASE_URL (role switchboard_ops)"
            )
