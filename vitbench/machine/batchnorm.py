"""Batch norm over the global batch of several processes on CPUs, because torch's SyncBatchNorm is only for GPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _MeanOverProcesses(torch.autograd.Function):
    """The mean over all processes. Its gradient is the mean of their gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return _mean_over_processes(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _mean_over_processes(gradient)


def _mean_over_processes(values: Tensor) -> Tensor:
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with statistics over the images of all processes in training. All have equally many images."""

    def forward(self, x: Tensor) -> Tensor:  # (B,C,H,W)
        if not self.training:
            return super().forward(x)
        mean = _MeanOverProcesses.apply(x.mean((0, 2, 3)))
        centred = x - mean[:, None, None]
        variance = _MeanOverProcesses.apply(centred.square().mean((0, 2, 3)))
        count = x.numel() // x.shape[1] * dist.get_world_size()  # number of values of a channel
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Updates the running statistics, as `nn.BatchNorm2d` does."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


def convert(model: nn.Module) -> None:
    """Turns every batch norm of a model into a `GlobalBatchNorm2d`, in place."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
