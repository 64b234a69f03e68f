"""Ports of the loopback address for servers that a test starts by itself.

They lie below the range from which systems take ports for outgoing connections (32768 and up on Linux), and each test
process has a block of its own: a port that was given out stays free until its server binds it, whatever runs beside.
"""

from __future__ import annotations

import itertools
import os
import socket

FIRST, BLOCK, BLOCKS = 12_000, 400, 50
"""The first port, ports of a block, and number of blocks: 12000 to 31999."""


def _block() -> int:
    """This process' block: neighbours of one run differ by the worker's number, runs by their process id."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    return (run * 7 + int(worker)) % BLOCKS


_numbers = itertools.count(os.getpid())


def free_port() -> int:
    """A port that nobody listens on just now, and that this process has not given out lately."""
    block = FIRST + _block() * BLOCK
    for number in itertools.islice(_numbers, BLOCK):
        port = block + number % BLOCK
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a port may be taken again
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"No free port from {block} to {block + BLOCK - 1}.")
