"""What callers ask for, checked and normalised."""

from .endpoint import (
    EndpointRequest,
    endpoint_request,
)
from .network import (
    NetworkRequest,
    SubnetRequest,
    network_request,
)
from .sandbox import (
    SandboxRequest,
    sandbox_request,
)

__all__ = [
    "EndpointRequest",
    "NetworkRequest",
    "SandboxRequest",
    "SubnetRequest",
    "endpoint_request",
    "network_request",
    "sandbox_request",
]
