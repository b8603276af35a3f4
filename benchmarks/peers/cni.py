"""The CNI plugins bridge, host-local and portmap, executed as runtimes do."""

from __future__ import annotations

import json
import os
import subprocess

from .namespace import Namespace

_DIRECTORY = "/usr/lib/cni"
PROGRAMS = [f"{_DIRECTORY}/{name}" for name in ("bridge", "host-local", "portmap")]
_COMMON = {"cniVersion": "0.4.0", "name": "bench"}
_BRIDGE = {
    **_COMMON,
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "hairpinMode": True,
    "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni",
        "ranges": [[{"subnet": "10.77.0.0/16"}], [{"subnet": "fd77::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
}


class Life:
    """A namespace of ours that the plugins work on."""

    def __init__(self, position: int, port: int) -> None:
        self._namespace = Namespace(f"c{position}")
        self._id = f"c{position}"
        self._port = port
        self._result: object = None

    def begin(self) -> None:
        self._namespace.make()
        self._result = json.loads(self._run("ADD", _BRIDGE))
        if self._port:
            self._run("ADD", self._portmap())

    def end(self) -> None:
        if self._port:
            self._run("DEL", self._portmap())
        self._run("DEL", {**_BRIDGE, "prevResult": self._result})
        self._namespace.remove()

    def _portmap(self) -> dict[str, object]:
        mapping = {"hostPort": self._port, "containerPort": 80, "protocol": "tcp"}
        return {
            **_COMMON,
            "type": "portmap",
            "capabilities": {"portMappings": True},
            "runtimeConfig": {"portMappings": [mapping]},
            "prevResult": self._result,
        }

    def _run(self, what: str, configuration: dict[str, object]) -> bytes:
        environment = {
            **os.environ,
            "CNI_COMMAND": what,
            "CNI_CONTAINERID": self._id,
            "CNI_NETNS": self._namespace.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": _DIRECTORY,
        }
        done = subprocess.run(
            [f"{_DIRECTORY}/{configuration['type']}"],
            input=json.dumps(configuration).encode(),
            env=environment,
            stdout=subprocess.PIPE,
        )
        if done.returncode:  # a plugin tells its errors by its output
            raise RuntimeError(done.stdout.decode())
        return done.stdout
