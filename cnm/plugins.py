"""Discovery, validation and calling of drivers and observers."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import CodeType, MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import anyio.to_thread
import pluggy

from .acceptance import check_bindings, check_indexes, refusal
from .answers import JoinInfo, LeaveInfo, PublishInfo
from .errors import CNMError, DriverError, DriverLoadError, DriverNotFound, told
from .events import DriverEvent, Event
from .hookspecs import MANDATORY, PROJECT, IPAMDriver, NetworkDriver, Observer
from .plans import Plan, ends_more

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

R = TypeVar("R")

#: Seconds that a handler may take, unless the controller is told otherwise.
DRIVER_TIMEOUT = 60.0
#: Seconds that the import of a driver's package may take.
LOAD_TIMEOUT = 60.0

#: Entry-point group of each kind of plugin.
GROUPS: Mapping[type, str] = MappingProxyType(
    {
        NetworkDriver: "cnm.network_drivers",
        IPAMDriver: "cnm.ipam_drivers",
        Observer: "cnm.observers",
    }
)


def hook_name(event: type[Event] | Event) -> str:
    """Return the name of the hook that belongs to an event."""
    return "cnm_" + event.name.replace(".", "_")


class Driver:
    """A loaded driver.

    :param name: the name under which networks ask for it
    :param plugin: the object whose hooks it has
    :param spec: the hookspec class of its kind
    :param origin: the package it came from, for error messages
    :param timeout: seconds that a handler may take
    :raises DriverLoadError: if the hooks are not what the hookspecs say
    """

    def __init__(
        self,
        name: str,
        plugin: object,
        spec: type,
        *,
        origin: str = "",
        timeout: float = DRIVER_TIMEOUT,
    ) -> None:
        self.name = name
        self.origin = origin
        self._timeout = timeout
        # A manager of its own: the hooks of a driver concern its own networks only,
        # and a plugin that fails validation leaves nothing behind.
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(spec)
        title = f"driver {name!r}" + (f" of {origin}" if origin else "")
        try:
            manager.register(plugin, name)
            manager.check_pending()
        except pluggy.PluginValidationError as exc:
            raise DriverLoadError(f"{title}: {exc}") from exc
        self._hooks: dict[str, Callable[[Event], Awaitable[object]]] = {}
        prompt = set()
        for caller in manager.get_hookcallers(plugin) or ():
            for implementation in caller.get_hookimpls():
                if implementation.wrapper or implementation.hookwrapper:
                    raise DriverLoadError(f"{title}: {caller.name} is a wrapper")
                if not inspect.iscoroutinefunction(implementation.function):
                    raise DriverLoadError(f"{title}: {caller.name} is not async def")
                # one at the most: the manager is this driver's own
                self._hooks[caller.name] = _handler(implementation)
                if not _awaits(implementation.function):
                    prompt.add(caller.name)
        if missing := sorted(MANDATORY[spec] - self._hooks.keys()):
            raise DriverLoadError(f"{title}: lacks {', '.join(missing)}")
        # A handler that awaits nothing cannot be late, and a deadline costs 10 us.
        self._prompt = frozenset(prompt)

    def handles(self, event: type[Event]) -> bool:
        """Tell whether the driver has a handler for events of a class."""
        return hook_name(event) in self._hooks

    def is_prompt(self, event: type[Event]) -> bool:
        """Tell whether events of a class are handled without waiting for anything.

        A handler that waits for nothing has changed nothing in the kernel: that takes
        a plan.
        """
        hook = hook_name(event)
        return hook in self._prompt or hook not in self._hooks

    async def handle(self, event: DriverEvent[R]) -> R:
        """Have the driver handle an event, and return what its handler returns.

        :raises CNMError: what the handler raised, if it is one of cnm's
        :raises DriverError: if the handler raised something else, or took too long
        """
        return cast("R", await self.call(hook_name(event), event))

    async def call(self, hook: str, event: Event) -> object:
        """Call a hook with an event, and return what it returns.

        A plan that it returns raises errors like a hook.

        :raises CNMError: what the hook raised, if it is one of cnm's
        :raises DriverError: if the hook raised something else, or took too long
        """
        handler = self._hooks.get(hook)
        if handler is None:
            return None
        try:
            if hook in self._prompt:
                return self._with_plan(event, await handler(event))
            with anyio.move_on_after(self._timeout):
                return self._with_plan(event, await handler(event))
        except CNMError:
            raise
        except BaseException as exc:
            if ends_more(exc, anyio.get_cancelled_exc_class()):
                raise
            raise DriverError(self.name, event.name, exc) from exc
        reason = f"no answer after {self._timeout:g} s"
        raise DriverError(self.name, event.name, reason)

    def _with_plan(self, event: Event, answer: object) -> object:
        """Return an answer whose plan, if it has one, raises errors of cnm's only."""
        if not isinstance(answer, (JoinInfo, LeaveInfo, PublishInfo)):
            return answer
        if not callable(answer.plan):
            return answer
        inner: Callable[..., Any] = answer.plan
        plan: Any = Plan(self.name, event, inner, _CHECKS.get(type(answer)))
        return replace(answer, plan=plan)

    async def demand(self, event: DriverEvent[R], kind: type[R]) -> R:
        """Have the driver handle an event whose result is mandatory.

        :raises DriverError: also if the handler returned something of another type, or
            of no use
        """
        result: object = await self.handle(event)
        if reason := refusal(result, (kind,), f"a {kind.__name__}"):
            raise DriverError(self.name, event.name, reason)
        return cast("R", result)


#: What checks the results of plans, by the answers that they come with.
_CHECKS: Mapping[type, Callable[[object], None]] = MappingProxyType(
    {JoinInfo: check_indexes, PublishInfo: check_bindings}
)


def _handler(
    implementation: pluggy.HookImpl,
) -> Callable[[Event], Awaitable[object]]:
    """Return what calls a hook; an implementation may do without the argument."""
    function = cast("Callable[..., Awaitable[object]]", implementation.function)
    return function if implementation.argnames else lambda event: function()


def _awaits(function: Callable[..., object]) -> bool:
    """Tell whether a coroutine function may wait for something."""
    return not inspect.isroutine(function) or _suspends(cast("Any", function).__code__)


@lru_cache(1024)  # controllers load the same drivers again
def _suspends(code: CodeType) -> bool:
    return any(it.opname == "YIELD_VALUE" for it in dis.get_instructions(code))


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverInfo:
    """What is known of an installed driver.

    :ivar name: the name under which it is asked for
    :ivar origin: the module and object that its entry point names
    :ivar distribution: the package and version that brought it
    :ivar loaded: whether the controller has loaded it
    :ivar refused: why it cannot be used, or ``""``
    """

    name: str
    origin: str = ""
    distribution: str = ""
    loaded: bool = False
    refused: str = ""


class DriverRegistry:
    """The drivers of one kind, each loaded when it is first asked for.

    :param spec: the hookspec class of the kind
    :param extra: further plugins by name: objects, or classes without arguments
    :param timeout: seconds that a handler may take
    """

    def __init__(
        self,
        spec: type,
        extra: Mapping[str, object] | None = None,
        timeout: float = DRIVER_TIMEOUT,
    ) -> None:
        self._spec = spec
        self._timeout = timeout
        self._installed: dict[str, EntryPoint] = {}
        self._packages: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._loaded: dict[str, Driver] = {}
        self._extra = dict(extra or {})
        self._locks: dict[str, anyio.Lock] = {}

    def discover(self) -> None:
        """Find out which drivers installed packages declare. Blocks for some ms."""
        from importlib.metadata import entry_points  # takes 15 ms to import

        for entry in entry_points(group=GROUPS[self._spec]):
            package = entry.dist
            if package is not None:
                self._packages[entry.name] = f"{package.name} {package.version}"
            other = self._installed.setdefault(entry.name, entry)
            if other.value != entry.value:
                self._refused[entry.name] = (
                    f"two packages declare it: {other.value} and {entry.value}"
                )

    @property
    def available(self) -> tuple[DriverInfo, ...]:
        """All drivers that are installed, by name."""
        return tuple(self._describe(name) for name in self.names)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the drivers that have been loaded."""
        return tuple(sorted(self._loaded))

    @property
    def refused(self) -> Mapping[str, str]:
        """Names of the drivers that cannot be used, and why."""
        return MappingProxyType(self._refused)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all drivers that are installed."""
        return tuple(sorted(self._installed.keys() | self._extra.keys()))

    def _describe(self, name: str) -> DriverInfo:
        entry = None if name in self._extra else self._installed.get(name)
        return DriverInfo(
            name=name,
            origin=entry.value if entry else "",
            distribution=self._packages.get(name, "") if entry else "",
            loaded=name in self._loaded,
            refused=self._refused.get(name, ""),
        )

    async def get(
        self, name: str, prepare: Callable[[Driver], Any] | None = None
    ) -> Driver:
        """Return the driver of a name, loading it if need be.

        :param prepare: async function that is awaited with a driver just loaded,
            before anybody else gets it
        :raises DriverNotFound: if none is installed under the name
        :raises DriverLoadError: if it cannot be imported, or is not a valid driver
        """
        if driver := self._loaded.get(name):
            return driver
        # one that is slow to load, or hangs, keeps nobody from another
        async with self._locks.setdefault(name, anyio.Lock()):
            if driver := self._loaded.get(name):
                return driver
            driver = await self._load(name)
            if prepare is not None:
                await prepare(driver)
            self._loaded[name] = driver
            return driver

    async def _load(self, name: str) -> Driver:
        if name in self._extra:
            plugin, origin = self._extra[name], ""
            if inspect.isclass(plugin):
                plugin = self._make(name, plugin)
        elif name not in self._installed:
            raise DriverNotFound(name, self.names)
        elif name in self._refused:
            raise DriverLoadError(f"driver {name!r}: {self._refused[name]}")
        else:
            entry = self._installed[name]
            origin = entry.value
            plugin = await self._import(entry)
        try:
            return Driver(
                name, plugin, self._spec, origin=origin, timeout=self._timeout
            )
        except DriverLoadError as exc:
            self._refused[name] = str(exc)
            raise

    def _make(self, name: str, kind: type) -> object:
        try:
            return kind()
        except BaseException as exc:
            if ends_more(exc):
                raise
            self._refused[name] = f"driver {name!r}: {told(exc)}"
            raise DriverLoadError(self._refused[name]) from exc

    async def _import(self, entry: EntryPoint) -> object:
        try:
            with anyio.fail_after(LOAD_TIMEOUT):
                plugin: object = await anyio.to_thread.run_sync(
                    entry.load, abandon_on_cancel=True
                )
            return plugin() if inspect.isclass(plugin) else plugin
        except TimeoutError as exc:  # it may be faster next time
            raise DriverLoadError(
                f"driver {entry.name!r} of {entry.value}: it was not imported within "
                f"{LOAD_TIMEOUT:g} s"
            ) from exc
        except BaseException as exc:
            if ends_more(exc, anyio.get_cancelled_exc_class()):
                raise
            reason = f"driver {entry.name!r} of {entry.value}: {told(exc)}"
            self._refused[entry.name] = reason
            raise DriverLoadError(reason) from exc
