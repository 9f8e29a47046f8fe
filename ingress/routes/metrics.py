"""`GET /metrics`: this process's numbers for Prometheus.

They stand on the port that faces the world, so they are never open: the scraper's token (which needs no server of ours,
so that an outage can be watched), or an operator's API key.
"""

from starlette.requests import Request
from starlette.responses import Response

from ingress.state import ingress_of
from shared.telemetry.metrics import CONTENT_TYPE, exposition, opens


async def metrics(request: Request) -> Response:
    ingress = ingress_of(request)
    if not opens(ingress.settings.metrics_token, request.headers.get("authorization", "")):
        await ingress.authenticate(request, "operator")
    return Response(exposition(), headers={"cache-control": "no-store", "content-type": CONTENT_TYPE})
