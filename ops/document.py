"""`switchboard openapi`: the API document of either application as text, without starting it."""

import json

from ingress.openapi.document import build
from shared.config import Settings


def printed(settings: Settings, *, console: bool) -> str:
    if console:
        from ops.console.app import ROUTES as CONSOLE_ROUTES  # noqa: PLC0415 - only what is printed is loaded
        from ops.console.openapi.operations import CONSOLE  # noqa: PLC0415

        document = build(CONSOLE, CONSOLE_ROUTES, settings)
    else:
        from ingress.app import ROUTES  # noqa: PLC0415
        from ingress.openapi.operations import INGRESS  # noqa: PLC0415

        document = build(INGRESS, ROUTES, settings)
    return json.dumps(document, indent=2)
