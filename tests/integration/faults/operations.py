"""The operations that are walked through."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Interface

import cnm
from cnm import Controller
from cnm.linux import (
    NetlinkSocket,
    add_address,
    add_bridge,
    delete_link,
    dump_links,
    parse_link,
)

SUBNETS = ["10.9.0.0/24", "fd00:9::/64"]
Act = Callable[[Controller], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Operation:
    """What is prepared, and then done.

    :ivar act: None for the start of a controller
    :ivar tolerant: whether ports may be lost if the driver fails to move them
    """

    prepare: Act
    act: Act | None
    tolerant: bool = False


async def nothing(controller: Controller) -> None:
    """Prepare nothing."""


def front(controller: Controller) -> cnm.Network:
    return controller.network("front")


def box(controller: Controller) -> cnm.Sandbox:
    return controller.sandbox("box")


async def network(controller: Controller) -> cnm.Network:
    return await controller.create_network("front", subnets=SUBNETS)


async def host_bridge(controller: Controller) -> None:
    with NetlinkSocket() as route:
        foreign = IPv4Interface("192.0.2.1/24")
        route.call(add_bridge("lan0", index=900, up=True), add_address(900, foreign))


async def network_on_host_bridge(controller: Controller) -> None:
    await controller.create_network(
        "front", subnets=["10.9.0.0/24"], options={"name": "lan0"}
    )


async def apart(controller: Controller) -> None:
    """A network and a sandbox."""
    await network(controller)
    await controller.create_sandbox("box")


async def built(controller: Controller) -> None:
    """A network, a sandbox, and an endpoint that is not joined."""
    await apart(controller)
    await front(controller).create_endpoint("ep", ports=["8081:80"])


async def joined(controller: Controller) -> None:
    await built(controller)
    await front(controller).endpoint("ep").join(box(controller))


async def twice(controller: Controller) -> None:
    """A sandbox on two networks, the second of which provides the default route."""
    await joined(controller)
    back = await controller.create_network("back", subnets=["10.10.0.0/24"])
    await back.connect(box(controller), gateway_priority=1)


async def damaged(controller: Controller) -> None:
    """Much that a start has to make again."""
    await twice(controller)
    await network_for(controller, "lost")
    with NetlinkSocket() as route:
        for link in map(parse_link, route.dump(dump_links())):
            endpoint = front(controller).endpoint("ep")
            lost = controller.network("lost").id
            if link.alias.endswith((endpoint.id, lost)):
                route.call(delete_link(link.index))


async def network_for(controller: Controller, name: str) -> None:
    made = await controller.create_network(name, subnets=["10.11.0.0/24"])
    await made.connect(box(controller))


async def adopt(controller: Controller) -> None:
    # a process of the same name space is as good as any other
    await controller.create_sandbox("adopted", netns=os.getpid())


OPERATIONS: dict[str, Operation] = {
    "create network": Operation(nothing, network),
    "create network on a host's bridge": Operation(host_bridge, network_on_host_bridge),
    "create configuration": Operation(
        nothing, lambda c: c.create_network("conf", config_only=True)
    ),
    "delete network": Operation(network, lambda c: front(c).delete()),
    "delete network by force": Operation(joined, lambda c: front(c).delete(force=True)),
    "create sandbox": Operation(nothing, lambda c: c.create_sandbox("box")),
    "create bound sandbox": Operation(
        nothing, lambda c: c.create_sandbox("box", bound_to=os.getppid())
    ),
    "adopt namespace": Operation(nothing, adopt),
    "delete sandbox": Operation(twice, lambda c: box(c).delete()),
    "create endpoint": Operation(network, lambda c: front(c).create_endpoint("ep")),
    "delete endpoint": Operation(built, lambda c: front(c).endpoint("ep").delete()),
    "delete joined endpoint": Operation(
        joined, lambda c: front(c).endpoint("ep").delete(force=True)
    ),
    "join": Operation(built, lambda c: front(c).endpoint("ep").join(box(c))),
    "connect": Operation(
        apart, lambda c: front(c).connect(box(c), name="ep", ports=["8081:80"])
    ),
    "leave": Operation(joined, lambda c: front(c).endpoint("ep").leave()),
    "leave the gateway": Operation(
        twice,
        lambda c: c.network("back").endpoint("box").leave(),
        tolerant=True,
    ),
    "publish": Operation(
        joined, lambda c: front(c).endpoint("ep").publish("8082:81", "8083:82")
    ),
    "unpublish": Operation(joined, lambda c: front(c).endpoint("ep").unpublish()),
    "add service": Operation(
        network,
        lambda c: front(c).services.add("_web._tcp", target="box", port=80),
    ),
    "start": Operation(damaged, None),
    "collect garbage": Operation(twice, lambda c: c.gc(["a", "b"])),
}
