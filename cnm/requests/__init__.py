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
    HOST_GATEWAY,
    SandboxRequest,
    sandbox_request,
)
from .services import (
    service_name,
    service_record,
)

__all__ = [
    "EndpointRequest",
    "HOST_GATEWAY",
    "NetworkRequest",
    "SandboxRequest",
    "SubnetRequest",
    "endpoint_request",
    "network_request",
    "port_requests",
    "sandbox_request",
    "service_name",
    "service_record",
    "with_more",
    "without",
]
