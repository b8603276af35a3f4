"""Whether a driver keeps to the contract, for the tests of its author."""

from .ipam import check_ipam_driver
from .network import check_network_driver
from .report import ConformanceError, Violation

__all__ = [
    "ConformanceError",
    "Violation",
    "check_ipam_driver",
    "check_network_driver",
]
