"""What a sandbox's names depend on, and who hears of its queries."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from .dns import Answered, Overrides, Situation
from .events import NameQueried
from .gateways import Candidate, elect, ranked
from .requests import SandboxRequest
from .services import Services
from .types import EndpointInfo, SandboxInfo


def directory(services: Services, sandbox: SandboxInfo) -> str:
    """Return the path of the directory of a sandbox's files."""
    return f"{services.run_dir}/files/{sandbox.id[:12]}"


def key(run_dir: str, identity: str, netns: str | int | None) -> str:
    """Return the path of a sandbox's namespace; all on the host's own share one."""
    name = "default" if netns == "host" else identity[:12]
    return f"{run_dir}/netns/{name}"


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


def observe(services: Services) -> None:
    """Tell of queries as long as somebody wants to hear of them."""
    wanted = services.bus.has_asked_for(NameQueried)
    services.names.observe(partial(_queried, services) if wanted else None)


def _queried(services: Services, answered: Answered) -> None:
    if sandbox := services.sandboxes.get(answered.sandbox_id):
        services.bus.publish(
            NameQueried(
                sandbox=sandbox.info,
                question=answered.name,
                kind=answered.kind,
                code=answered.code,
                source=answered.source,
                addresses=answered.addresses,
                seconds=answered.seconds,
            )
        )
