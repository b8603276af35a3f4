"""The tests have a host network of their own; every async test runs twice."""

from __future__ import annotations

import pytest

pytest_plugins = ["cnm.testing.plugin"]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
