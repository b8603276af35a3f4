"""What callers ask for, checked and normalised."""

from .endpoint import EndpointRequest as EndpointRequest
from .endpoint import endpoint_request as endpoint_request
from .network import NetworkRequest as NetworkRequest
from .network import SubnetRequest as SubnetRequest
from .network import network_request as network_request
from .sandbox import SandboxRequest as SandboxRequest
from .sandbox import sandbox_request as sandbox_request
