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
from .ports import (
    port_requests,
    with_more,
    without,
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
    "port_requests",
    "sandbox_request",
    "with_more",
    "without",
]
