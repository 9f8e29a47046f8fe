"""Messages accepted a second by one ingress process on one core, beside the same server doing nothing.

The ingress has a core to itself; generator and Valkey share the other one. Where that other core is the limit, the
ingress waits for it: its share of the bare server is therefore taken from CPU time per message, which waiting does not
change; the rates stand beside it.
"""

from dataclasses import dataclass

from benchmarks.figure import Figure, Goal
from benchmarks.product.deployment import (
    FIRST_CORE,
    SECOND_CORE,
    Deployment,
    Process,
    cpu_s,
    free_port,
    generator_and_valkey_on,
    open_deployment,
)
from benchmarks.product.http import post, saturate
from benchmarks.rig import Rig
from benchmarks.subject import Subject

CONNECTIONS = 64
PATH = "/v1/agents/support/messages"
MESSAGE = {"message": "Where is my parcel? It was sent on Monday.", "user_id": "u1"}
BARE, OURS = Subject.STOCK, Subject.TURNS


@dataclass(frozen=True)
class Accepting:
    per_s: float
    cpu_us: float
    """Of the server process, per message."""
    valkey_us: float


async def accept(rig: Rig) -> list[Figure]:
    async with open_deployment(rig) as deployment:
        with generator_and_valkey_on(rig, SECOND_CORE):
            ports = free_port(), free_port()
            servers = {BARE: deployment.peer("bare", ports[0]), OURS: deployment.ingress(ports[1])}
            samples: dict[Subject, list[Accepting]] = {BARE: [], OURS: []}
            for _ in range(rig.scale.rounds):
                for (subject, process), port in zip(servers.items(), ports, strict=True):
                    samples[subject].append(await _measure(deployment, process, port))
    return _figures(samples)


async def _measure(deployment: Deployment, process: Process, port: int) -> Accepting:
    rig, request = deployment.rig, post(PATH, MESSAGE, deployment.key)
    await deployment.clear()
    async with process.running(FIRST_CORE) as child:
        await saturate(port, request, connections=CONNECTIONS, seconds=rig.scale.warm_s)
        used_s, valkey_s = cpu_s([child]), await rig.server_cpu_s()
        per_s = await saturate(port, request, connections=CONNECTIONS, seconds=rig.scale.load_s)
        used_s, valkey_s = cpu_s([child]) - used_s, await rig.server_cpu_s() - valkey_s
    messages = per_s * rig.scale.load_s
    return Accepting(per_s, used_s / messages * 1e6, valkey_s / messages * 1e6)


def _figures(samples: dict[Subject, list[Accepting]]) -> list[Figure]:
    bare, ours = samples[BARE], samples[OURS]
    share = [theirs.cpu_us / mine.cpu_us for mine, theirs in zip(ours, bare, strict=True)]
    peer = "peer: the same Starlette and uvicorn answering without Redis"
    return [
        Figure(
            name="accepted by one process on one core",
            subject=OURS,
            unit="messages/s",
            ours=[one.per_s for one in ours],
            stock=[one.per_s for one in bare],
            note=peer,
        ),
        Figure(
            name="a message accepted, ingress",
            subject=OURS,
            unit="CPU µs",
            ours=[one.cpu_us for one in ours],
            stock=[one.cpu_us for one in bare],
            note=peer,
        ),
        Figure(
            name="ingress, share of the bare server by CPU time",
            subject=OURS,
            unit="share",
            ours=share,
            goal=Goal("value", 0.5, lower_is_better=False),
        ),
        Figure(name="a message accepted, Valkey", subject=OURS, unit="CPU µs", ours=[one.valkey_us for one in ours]),
    ]
