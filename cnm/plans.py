"""Plans that drivers return: how they fail, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

from .errors import CNMError, DriverError
from .events import Event
from .workers import refuse_coroutine

P = ParamSpec("P")
T = TypeVar("T")


class Plan(Generic[P, T]):
    """A plan that a driver has returned. It raises errors of cnm's only.

    :param check: raises an error if what the plan returns is of no use
    :ivar driver: name of the driver
    :ivar event: what the driver has answered with the plan
    :ivar running: whether a thread is at it
    :ivar error: how it has failed, ``""`` if it has not
    """

    def __init__(
        self,
        driver: str,
        event: Event,
        plan: Callable[P, T],
        check: Callable[[object], None] | None = None,
    ) -> None:
        self.driver = driver
        self.event = event
        self.running: bool = False
        self.error: str = ""
        self._plan = plan
        self._check = check

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Plan: run it."""
        self.running = True
        try:
            return self._run(*args, **kwargs)
        except DriverError as exc:
            self.error = str(exc)
            raise
        finally:
            self.running = False

    def _run(self, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            result = self._plan(*args, **kwargs)
            refuse_coroutine(result)
            if self._check is not None:
                self._check(result)
            return result
        except CNMError:
            raise
        except BaseException as exc:
            if ends_more(exc):
                raise
            raise DriverError(self.driver, self.event.name, exc) from exc


def ends_more(exc: BaseException, *others: type[BaseException]) -> bool:
    """Tell whether an exception ends more than the driver's code that it comes from.

    ``SystemExit`` does not: it is for the application to decide when to end.

    :param others: further exceptions that do
    """
    kinds: tuple[type[BaseException], ...] = (KeyboardInterrupt, GeneratorExit, *others)
    if isinstance(exc, BaseExceptionGroup):
        return exc.subgroup(kinds) is not None
    return isinstance(exc, kinds)
