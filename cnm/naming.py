"""What the names that a sandbox has and sees depend on."""

from __future__ import annotations

from collections.abc import Iterable

from .dns import Overrides, Situation
from .gateways import Candidate, elect, ranked
from .requests import SandboxRequest
from .services import Services
from .types import EndpointInfo, SandboxInfo


def directory(services: Services, sandbox: SandboxInfo) -> str:
    """Return the path of the directory of a sandbox's files."""
    return f"{services.run_dir}/files/{sandbox.id[:12]}"


def situation(
    services: Services,
    sandbox: SandboxInfo,
    request: SandboxRequest,
    joined: Iterable[tuple[EndpointInfo, Candidate]],
) -> Situation:
    """Return what a sandbox is joined to.

    :param joined: its endpoints, and what they offer for default routes
    """
    infos = {candidate.endpoint: (info, candidate) for info, candidate in joined}
    candidates = [candidate for _, candidate in infos.values()]
    chosen = elect(candidates)
    hops = (candidate.next_hop(version) for version, candidate in chosen.items())
    return Situation(
        sandbox=sandbox,
        directory=directory(services, sandbox),
        adopted=request.netns is not None,
        on_host=request.netns == "host",
        overrides=Overrides(
            nameservers=request.dns,
            search=request.dns_search,
            options=request.dns_options,
        ),
        extra_hosts=request.extra_hosts,
        endpoints=tuple(infos[it.endpoint][0] for it in ranked(candidates)),
        gateways=tuple(hop for hop in hops if hop is not None),
        connected=bool(chosen),
    )
