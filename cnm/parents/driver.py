"""The base class of drivers whose endpoints are links on a parent."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Generic, TypeVar, cast

from ..errors import ConflictError, InvalidError, KernelError, NetlinkError
from ..events import (
    Capability,
    DriverLoaded,
    EndpointCreated,
    EndpointInspected,
    EndpointJoined,
    EndpointLeft,
    JoinInfo,
    LeaveInfo,
    NetworkChecked,
    NetworkCreated,
    NetworkDeleted,
    NetworkRequested,
    NetworkRestored,
)
from ..hookspecs import NetworkDriver, hookimpl
from ..linux import (
    Placement,
    Request,
    Sockets,
    delete_address,
    delete_route,
    dump_links,
    parse_link,
    set_link,
)
from ..options import NoOptions, parse_options
from ..reports import Difference
from ..types import (
    JSON,
    EndpointInfo,
    EndpointState,
    IPAddress,
    IPInterface,
    NetworkInfo,
    NetworkState,
    Requirements,
    Scope,
)
from . import links
from .links import Present, Wanted, alone
from .options import ParentOptions, common_problems, shim_addresses
from .sharing import Sharing, Use

#: What the kernel says of a link, an address, a route and a namespace that are gone.
_GONE = (errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT, errno.EINVAL)
O = TypeVar("O", bound=ParentOptions)  # noqa: E741


@dataclass(frozen=True, kw_only=True, slots=True)
class NewLink:
    """A link that is to be made on a parent.

    :ivar netns: file descriptor of the network namespace it is made in, or None for the
        parent's
    """

    name: str
    index: int
    parent: int
    netns: int | None = None
    mac: str = ""


class ParentDriver(NetworkDriver, ABC, Generic[O]):
    """Handles the events of networks whose endpoints are links on a parent."""

    #: What the names of parents begin with that lead nowhere.
    dummy: ClassVar[str]

    def __init__(self) -> None:
        self._sharing = Sharing(self.conflict)

    # --- what a driver says of itself -------------------------------------------------

    def problems(self, network: NetworkInfo, options: O) -> Iterable[str]:
        """Tell what is wrong with a network that is asked for, besides what is common.

        :param options: the network's, or the defaults if they cannot be parsed
        """
        return ()

    @abstractmethod
    def mode(self, options: O) -> str:
        """Return how a network uses its parent."""

    @abstractmethod
    def conflict(self, use: Use, other: Use) -> str:
        """Say why a network cannot be on the parent of another, or ``""``."""

    @abstractmethod
    def add(self, options: O, link: NewLink) -> Request:
        """Return the request that makes a link."""

    @abstractmethod
    def choose_mac(self, endpoint: EndpointInfo) -> str:
        """Return an endpoint's MAC address, ``""`` if it has the parent's."""

    def default(
        self, options: O, endpoint: EndpointInfo, address: IPInterface | None
    ) -> tuple[IPAddress | None, bool]:
        """Return the next hop of a default route, and whether there is need of one."""
        data = endpoint.network.ipam_data
        found = (it.gateway for it in data if address and address.ip in it.subnet)
        return next(found, None), False

    def options(self, network: NetworkInfo) -> O:
        """Parse and check the options of a network.

        :raises InvalidError: with everything that is wrong with them
        """
        kind = cast("type[O]", self.network_options)  # ClassVars cannot be generic
        problems: list[str] = []
        try:
            options = parse_options(kind, network.options)
        except InvalidError as exc:
            problems.extend(exc.problems)
            options = kind()
        problems += self.problems(network, options)
        problems += common_problems(network, options)
        if problems:
            raise InvalidError(*problems)
        return options

    # --- networks ---------------------------------------------------------------------

    @hookimpl
    async def cnm_driver_loaded(self, event: DriverLoaded) -> Capability:
        """Keep the controller's kernel."""
        self._kernel = event.kernel
        self._owner = f"cnm:{event.controller}:"
        return Capability(connectivity=Scope.GLOBAL, planned=True)

    @hookimpl
    async def cnm_network_requested(self, event: NetworkRequested) -> Requirements:
        """Check the options; there is no gateway but the one that is given."""
        network = event.network
        options = self.options(network)
        self._sharing.check(self._use(network, options))
        return Requirements(gateway4=False, gateway6=False, internal=not options.parent)

    @hookimpl
    async def cnm_network_created(self, event: NetworkCreated) -> NetworkState:
        """Find the parent, or make it."""
        network = event.network
        options = self.options(network)
        self._sharing.add(self._use(network, options))
        together = self._sharing.on(self._parent(network, options))
        marks = frozenset(f"{self._owner}{it}" for it in together)
        try:
            return await self._take_up(network, options, marks=marks)
        except BaseException:
            await self._remove(network, options)
            raise

    @hookimpl
    async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
        """Remove the parent, if it was made and nobody else needs it."""
        await self._remove(event.network, self.options(event.network))

    @hookimpl
    async def cnm_network_restored(self, event: NetworkRestored) -> NetworkState:
        """Find the parent again, or make it again."""
        options = self.options(event.network)
        self._sharing.add(self._use(event.network, options))
        addresses = [it for each in event.endpoints for it in _addresses(each)]
        return await self._take_up(event.network, options, addresses)

    @hookimpl
    async def cnm_network_checked(
        self, event: NetworkChecked
    ) -> tuple[Difference, ...]:
        """Look at the parent."""
        network = event.network
        wanted = self._wanted(network, self.options(network))
        found = await self._kernel.run(
            lambda sockets: list(links.problems(sockets, wanted, _present(network)))
        )
        return tuple(Difference(subject=network, problem=it) for it in found)

    async def _take_up(
        self,
        network: NetworkInfo,
        options: O,
        endpoints: Sequence[IPInterface] = (),
        marks: frozenset[str] | None = None,
    ) -> NetworkState:
        wanted = replace(self._wanted(network, options), marks=marks)
        present = await self._kernel.run(links.take_up, wanted, endpoints)
        return NetworkState(
            interface_prefix=options.container_iface_prefix,
            links=present.made,
            parents=() if present.parent in present.made else (present.parent,),
            state={"parent": present.parent, "shim": present.shim},
        )

    async def _remove(self, network: NetworkInfo, options: O) -> None:
        wanted = self._wanted(network, options)
        heir = self._sharing.heir(network.id, wanted.parent)
        mark = f"{self._owner}{heir}" if heir else ""
        await self._kernel.run(links.remove, wanted, mark)
        self._sharing.remove(network.id)

    def _parent(self, network: NetworkInfo, options: O) -> str:
        return options.parent or f"{self.dummy}{network.id[:12]}"

    def _use(self, network: NetworkInfo, options: O) -> Use:
        parent = self._parent(network, options)
        return Use(network.id, network.name, parent, self.mode(options))

    def _wanted(self, network: NetworkInfo, options: O) -> Wanted:
        def make_shim(name: str, index: int, parent: int) -> Request:
            return self.add(options, NewLink(name=name, index=index, parent=parent))

        return Wanted(
            parent=self._parent(network, options),
            dummy=not options.parent,
            owner=self._owner,
            mark=f"{self._owner}{network.id}",
            mtu=options.mtu,
            shim=f"cs-{network.id[:12]}" if options.host_shim else "",
            make_shim=make_shim,
            addresses=shim_addresses(network),
        )

    # --- endpoints --------------------------------------------------------------------

    @hookimpl
    async def cnm_endpoint_created(self, event: EndpointCreated) -> EndpointState:
        """Check the options; choose a MAC address."""
        parse_options(NoOptions, event.endpoint.options)
        return EndpointState(mac=self.choose_mac(event.endpoint))

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        """Say how the link is made."""
        endpoint = event.endpoint
        network = endpoint.network
        options = self.options(network)
        gateway, connected4 = self.default(options, endpoint, endpoint.address)
        gateway6, connected6 = self.default(options, endpoint, endpoint.address6)
        return JoinInfo(
            plan=partial(self._plug, options, endpoint),
            gateway=None if network.internal else gateway,
            gateway6=None if network.internal else gateway6,
            connected4=connected4 and not network.internal,
            connected6=connected6 and not network.internal,
            announce=options.parent if endpoint.mac else "",
        )

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo:
        """Say how the link is taken off."""
        endpoint = event.endpoint
        mark = f"{self._owner}{endpoint.id}"
        shim = _present(endpoint.network).shim
        return LeaveInfo(
            plan=partial(_unplug, _addresses(endpoint), event.sandbox.key, mark, shim)
        )

    @hookimpl
    async def cnm_endpoint_inspected(
        self, event: EndpointInspected
    ) -> Mapping[str, JSON]:
        """Tell the name of the parent."""
        network = event.endpoint.network
        return {"parent": self._parent(network, self.options(network))}

    def _plug(self, options: O, endpoint: EndpointInfo, placement: Placement) -> None:
        present = _present(endpoint.network)
        link = NewLink(
            name=placement.interface,
            index=placement.index,
            parent=present.parent,
            netns=placement.netns,
            mac=endpoint.mac,
        )
        route = placement.sockets.route
        try:
            route.call(self.add(options, link))
        except NetlinkError as exc:
            raise self.explain(exc, endpoint.network, options) or exc from exc
        if present.shim:
            addresses = _addresses(endpoint)
            route.call(*(links.route_to(it, present.shim) for it in addresses))

    def explain(
        self, exc: NetlinkError, network: NetworkInfo, options: O
    ) -> Exception | None:
        """Return what to say when a link cannot be made, or None for the kernel's."""
        parent = self._parent(network, options)
        if exc.errno == errno.EBUSY:
            return ConflictError(
                f"parent {parent} is used in another way: by a bridge, a bond, or "
                f"links of another kind than {network.driver}"
            )
        return None


def _present(network: NetworkInfo) -> Present:
    state = network.driver_state
    return Present(int(str(state["parent"])), (), int(str(state["shim"])))


def _addresses(endpoint: EndpointInfo) -> list[IPInterface]:
    own = (endpoint.address, endpoint.address6)
    return [address for address in own if address is not None]


def _unplug(
    addresses: list[IPInterface], key: str, mark: str, shim: int, sockets: Sockets
) -> None:
    """Plan: free the MAC address and the addresses of a link at once.

    The link itself goes some 50 ms later, with its namespace or by the reaper, and has
    them until then.
    """
    try:
        with sockets.sandbox(key) as sandbox:
            for link in map(parse_link, sandbox.route.dump(dump_links())):
                if link.alias == mark:
                    sandbox.route.call(
                        set_link(link.index, up=False),
                        *(delete_address(link.index, it) for it in addresses),
                    )
    except KernelError as exc:
        _ignore_absence(exc)
    if shim:
        gone = [alone(address.ip).network for address in addresses]
        try:
            sockets.route.call(*(delete_route(it, index=shim) for it in gone))
        except NetlinkError as exc:
            _ignore_absence(exc)


def _ignore_absence(exc: KernelError) -> None:
    """Raise an error again, unless it says that something is not there any more."""
    others = exc.others if isinstance(exc, NetlinkError) else ()
    if any(each.errno not in _GONE for each in (exc, *others)):
        raise exc
