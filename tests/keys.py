"""Tenants and their keys in the database of a test, made as operators make them."""

from collections.abc import Sequence
from typing import Any

from sql import queries
from tests.ingress.harness import sha256


async def give_key(connection: Any, tenant: str, key: str, scopes: Sequence[str]) -> None:
    """By a role that may write tenants; makes the tenant if it is new."""
    await connection.execute(queries["create_tenant"], tenant, tenant, "{}", "tests")
    await connection.execute(queries["create_api_key"], tenant, sha256(key), scopes, "test", None, "tests")
