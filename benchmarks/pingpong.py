"""A byte there and back by TCP: ``python -m benchmarks.pingpong serve|ask|connect``."""

from __future__ import annotations

import json
import socket
import sys
import time

PORT = 5202


def serve() -> None:
    """Answer one connection after the other, until killed."""
    with socket.create_server(("0.0.0.0", PORT), backlog=4096) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data := connection.recv(1):
                    connection.send(data)


def ask(address: str, port: int, count: int) -> list[float]:
    """Return what each question and its answer take, in us."""
    took = []
    with socket.create_connection((address, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            started = time.perf_counter()
            connection.send(b"?")
            connection.recv(1)
            took.append((time.perf_counter() - started) * 1e6)
    return took


def connect(address: str, port: int, count: int) -> list[float]:
    """Return what making each connection takes, in us."""
    took = []
    for _ in range(count):
        with socket.socket() as client:
            started = time.perf_counter()
            client.connect((address, port))
            took.append((time.perf_counter() - started) * 1e6)
    return took


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "serve":
        serve()
    else:
        work = {"ask": ask, "connect": connect}[what]
        address, port, count = arguments
        print(json.dumps(work(address, int(port), int(count))))
