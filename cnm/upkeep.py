"""What a controller does to keep itself and the host in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

import cnm

from .errors import InvalidError
from .reports import Difference, RestoreReport
from .types import EndpointInfo, Finding, SandboxInfo
from .validation import shown

if TYPE_CHECKING:
    from .running import Running


class Upkeep(ABC):
    """The part of a controller that finds out how things are, and tidies up."""

    @property
    @abstractmethod
    def _work(self) -> Running:
        """What does the controller's work, while it runs."""

    @property
    def restored(self) -> RestoreReport:
        """What the controller found when it started, and what it did about it."""
        return self._work.services.report

    @property
    def name_statistics(self) -> cnm.NameStatistics:
        """What the programs of all sandboxes have asked the resolvers so far."""
        return self._work.services.names.statistics

    async def diagnose(self) -> tuple[Finding, ...]:
        """Look for what keeps traffic from flowing, and say what to do about it.

        It looks at the kernel only, changes nothing, and takes some milliseconds.

        :return: what was found, errors first; nothing if all is well
        """
        return await self._work.diagnose()

    async def check(self) -> tuple[Difference, ...]:
        """Compare what the controller knows with what the kernel has.

        It changes nothing. Networks are compared by their drivers; of the sandboxes the
        namespaces, interfaces, addresses and default routes are compared; of the
        nftables table how many rules and elements there are. What is being changed
        meanwhile is passed over.

        :return: what is not as it should be
        """
        return await self._work.check()

    async def repair(self) -> tuple[Difference, ...]:
        """Put right whatever :meth:`check` finds.

        Bridges, ports, interfaces, addresses, routes and rules are made again; a
        network that has a :attr:`Network.fault` is restored, if that is possible now; a
        sandbox whose namespace is gone is dropped, and its endpoints are kept, joined
        to nothing. What cannot be mended is left as it is. An interface that cannot be
        made again leaves its endpoint not joined, if its network is as it should be.

        :return: what was found, and whether it has been mended
        """
        return await self._work.repair()

    async def gc(
        self, live: Iterable[cnm.Sandbox | str]
    ) -> tuple[SandboxInfo | EndpointInfo, ...]:
        """Remove the sandboxes that nobody needs any more, and all stray endpoints.

        For callers who know which sandboxes are alive, after a crash of their own for
        instance. An endpoint that is in no sandbox, nor about to join one, is stray.
        What is created after the call has begun is not touched.

        :param live: the sandboxes to keep: handles, names, ids or unique id prefixes
        :return: what has been removed
        :raises SandboxNotFound: if a sandbox to keep does not exist; nothing is removed
        :raises TeardownError: if something failed on the way; the rest is removed
        """
        work = self._work
        if isinstance(live, (str, bytes)) or not isinstance(live, Iterable):
            raise InvalidError(f"live: expected a list, not {shown(live)}")
        return await work.collect(live)
