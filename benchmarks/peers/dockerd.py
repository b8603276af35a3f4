"""dockerd, over its socket; with the directories, and in the network, of a child."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..ways import Measure, Way

#: Seconds that it may take to start.
_PATIENCE = 30
_API = "/v1.41"
_PAUSE = "int pause(void); int main(void) { return pause(); }\n"


def way(measure: Measure, programs: Sequence[str] = (), install: str = "") -> Way:
    """Return dockerd's way of doing something.

    :param programs: what it needs besides the daemon
    :param install: how that is installed
    """
    return Way(
        name="dockerd",
        measure=measure,
        peer=True,
        programs=["dockerd", "runc", "gcc", *programs],
        install=f"docker.io gcc libc6-dev {install}".strip(),
        rounds=2,
    )


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class Dockerd:
    """A daemon that runs.

    :ivar pid: its process
    """

    def __init__(self, path: str, pid: int) -> None:
        self.pid = pid
        self._connection = _Connection(path)

    def ask(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """Have it do something, and return its answer.

        :raises RuntimeError: if it refuses
        """
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        headers = {"Content-Type": kind}
        self._connection.request(method, f"{_API}{path}", data, headers)
        answer = self._connection.getresponse()
        text = answer.read().decode()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {text}")
        lines = text.strip().splitlines()
        return dict(json.loads(lines[-1])) if lines and lines[-1] != "OK" else {}

    def network(self, name: str, subnet4: str, subnet6: str) -> None:
        """Make a dual-stack network."""
        subnets = [{"Subnet": subnet4}, {"Subnet": subnet6}]
        body = {"Name": name, "EnableIPv6": True, "IPAM": {"Config": subnets}}
        self.ask("POST", "/networks/create", body)

    def container(
        self,
        name: str,
        network: str,
        *,
        ports: Sequence[tuple[int, int]] = (),
        aliases: Sequence[str] = (),
    ) -> None:
        """Make a container that waits, to be started.

        :param ports: ports of the host, and the container's that they lead to
        :param aliases: further names in its network
        """
        bindings = {f"{own}/tcp": [{"HostPort": str(host)}] for host, own in ports}
        endpoints = {network: {"Aliases": list(aliases)}} if aliases else {}
        body = {
            "Image": "pause",
            "Cmd": ["/pause"],
            "NetworkingConfig": {"EndpointsConfig": endpoints},
            "ExposedPorts": {port: {} for port in bindings},
            "HostConfig": {"NetworkMode": network, "PortBindings": bindings},
        }
        self.ask("POST", f"/containers/create?name={name}", body)

    def start(self, name: str) -> None:
        """Start a container."""
        self.ask("POST", f"/containers/{name}/start")

    def remove(self, name: str) -> None:
        """Remove a container."""
        self.ask("DELETE", f"/containers/{name}?force=true")

    def process(self, name: str) -> int:
        """Return the process of a container."""
        state = self.ask("GET", f"/containers/{name}/json")["State"]
        assert isinstance(state, dict)
        return int(state["Pid"])


@contextmanager
def running() -> Iterator[Dockerd]:
    """Run a daemon of our own, which has an image ``pause``."""
    with tempfile.TemporaryDirectory() as directory:
        options = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        arguments = [f"--{name}={directory}/{it}" for name, it in options.items()]
        path = f"{directory}/socket"
        arguments += ["--storage-driver=vfs", "-H", f"unix://{path}"]
        # the one of our network, which hides the machine's with its control groups
        subprocess.run(["umount", "/sys"], check=True)
        with subprocess.Popen(
            ["dockerd", *arguments], stderr=subprocess.DEVNULL
        ) as daemon:
            try:
                _wait(path)
                dockerd = Dockerd(path, daemon.pid)
                image = _image(directory)
                dockerd.ask("POST", "/images/create?fromSrc=-&repo=pause", image)
                yield dockerd
            finally:
                daemon.terminate()


def _wait(path: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            Dockerd(path, 0).ask("GET", "/version")
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"dockerd has not started in {_PATIENCE} s"
                ) from None
            time.sleep(0.1)
        else:
            return


def _image(directory: str) -> bytes:
    """Return an image with a program that waits."""
    source, program = f"{directory}/pause.c", f"{directory}/pause"
    with open(source, "w", encoding="ascii") as file:
        file.write(_PAUSE)
    subprocess.run(["gcc", "-static", "-o", program, source], check=True)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(program, "pause")
    os.unlink(source)
    return data.getvalue()
