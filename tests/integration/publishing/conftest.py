"""A machine outside."""

from tests.integration.api.conftest import outside

__all__ = ["outside"]
