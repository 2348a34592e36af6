"""Runs a function in several data-parallel processes, one thread each, or in this one."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from varlab.errors import VarlabError


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _worker(
    rank: int, world: int, port: int, failures: Any, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        function(rank, world, *arguments)
    except VarlabError as error:
        failures.put(str(error))
        raise
    finally:
        dist.destroy_process_group()


def launch(workers: int, function: Callable[..., None], *arguments: object) -> None:
    """Call ``function(rank, world, *arguments)``: here for one worker, else in ``workers`` processes.

    A VarlabError of a worker is raised here too.
    """
    if workers == 1:
        function(0, 1, *arguments)
        return
    failures = mp.get_context("spawn").SimpleQueue()
    try:
        given = (workers, _free_port(), failures, function, arguments)
        mp.start_processes(_worker, given, nprocs=workers, start_method="spawn")
    except mp.ProcessRaisedException as error:
        if failures.empty():
            raise
        raise VarlabError(failures.get()) from error
