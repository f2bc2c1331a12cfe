"""Processes that average their gradients once a step.

On a CPU the run starts its own one-thread helpers; under ``torchrun`` it joins the group that
torchrun made. Either way a step exchanges one flat buffer: gradients, and a few numbers that all
processes must agree on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vla.errors import ConfigError, DivergenceError, VlaError

_WAIT = timedelta(hours=2)  # an evaluation between steps may take long; a dead process is noticed at once


class ProcessGroup:
    """This process's place among ``size`` processes; ``rank`` 0 writes files."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def average_(self, tensors: list[Tensor], agreed: Tensor) -> Tensor:
        """Average ``tensors`` in place over processes; returns the sum of ``agreed`` over processes."""
        if self.size == 1:
            return agreed
        flat = torch.cat([*(t.reshape(-1) for t in tensors), agreed.to(tensors[0].device, torch.float32)])
        dist.all_reduce(flat)
        parts = flat.split([*(t.numel() for t in tensors), agreed.numel()])
        torch._foreach_copy_(tensors, [p.view_as(t) for p, t in zip(parts[:-1], tensors, strict=True)])
        torch._foreach_mul_(tensors, 1.0 / self.size)
        return parts[-1].cpu()

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


def under_torchrun() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join_torchrun(device: torch.device) -> ProcessGroup:
    """The group that torchrun describes in the environment."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_WAIT)
    return ProcessGroup(rank, size)


def run_with_helpers(
    work: Callable[..., Any], size: int, args: tuple[Any, ...], leader_args: tuple[Any, ...] = ()
) -> Any:
    """Run ``work(group, *args)`` in ``size - 1`` new processes, and here with ``leader_args`` added."""
    if size == 1:
        return work(ProcessGroup(), *args, *leader_args)
    store = dist.TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False, timeout=_WAIT)
    context = torch.multiprocessing.get_context("spawn")
    helpers = [
        context.Process(target=_helper, args=(work, rank, size, store.port, args), daemon=True)
        for rank in range(1, size)
    ]
    for helper in helpers:
        helper.start()
    try:
        _join_gloo(store, 0, size)
        return work(ProcessGroup(0, size), *args, *leader_args)
    except VlaError:
        raise
    except RuntimeError as error:
        for helper in helpers:  # one that has failed is about to end
            helper.join(timeout=2)
        dead = [helper.exitcode for helper in helpers if helper.exitcode]
        if dead:
            raise ConfigError(f"A training process ended with code {dead[0]}; its error is above.") from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        for helper in helpers:
            helper.join(timeout=20)
            if helper.is_alive():
                helper.terminate()


def _helper(work: Callable[..., Any], rank: int, size: int, port: int, args: tuple[Any, ...]) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 hears Ctrl-C and tells everybody to stop
    _join_gloo(dist.TCPStore("127.0.0.1", port, size, is_master=False, timeout=_WAIT), rank, size)
    try:
        work(ProcessGroup(rank, size), *args)
    except DivergenceError:  # every process raises it; rank 0 tells
        return
    except VlaError as error:  # of this process's windows
        print(f"vla: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except RuntimeError as error:
        if "gloo" not in str(error):
            raise
        raise SystemExit(1) from None  # another process has failed and told why
    finally:
        dist.destroy_process_group()


def _join_gloo(store: Any, rank: int, size: int) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # same machine: no name look-up, no network
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_WAIT)
