"""Whatever is asked here is answered without waiting."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests once: it makes no difference where."""
    return "asyncio"
