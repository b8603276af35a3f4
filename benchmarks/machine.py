"""The machine that figures come from."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version

from .ways import PATH

#: What says which version of a program there is.
_PROGRAMS = {
    "dockerd": ["dockerd", "--version"],
    "netavark": ["/usr/lib/podman/netavark", "--version"],
    "aardvark-dns": ["/usr/lib/podman/aardvark-dns", "--version"],
    "CNI plugins": ["dpkg-query", "-Wf", "${Version}", "containernetworking-plugins"],
    "ip": ["ip", "-V"],
    "nft": ["nft", "-v"],
    "iptables": ["iptables", "-V"],
    "iperf3": ["iperf3", "-v"],
}
_PACKAGES = ("cnm", "anyio", "trio", "pluggy", "pyroute2")


def describe() -> dict[str, object]:
    """Describe the machine, and what it runs."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %z"),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "CPU": _model(),
        "memory, GB": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30,
        "load when started": os.getloadavg()[0],
        "Python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "programs": {
            name: found for name, call in _PROGRAMS.items() if (found := _ask(call))
        },
    }


def _model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _ask(command: list[str]) -> str:
    """Return the first line of what a program says, ``""`` without the program."""
    environment = {**os.environ, "PATH": PATH}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        return ""
    return (done.stdout.strip().splitlines() or [""])[0]
