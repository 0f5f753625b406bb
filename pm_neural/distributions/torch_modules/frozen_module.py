"""A torch module that computes energies, frozen, behind NumPy arrays. Imported when the first `Energy` is made."""

from __future__ import annotations

import copy
import os
from functools import cache
from itertools import chain
from multiprocessing import parent_process
from uuid import uuid4

import numpy as np
import torch
from torch import nn

__all__ = ["FrozenModule"]

_RELATIVE_TOLERANCE = 1e-2  # of two evaluations of one energy, in the module's own type

_NUMPY_TYPES = {torch.float32: np.float32, torch.float64: np.float64}


class FrozenModule:
    """A copy of a module, in evaluation mode and without gradients of its weights.

    Copies, and what is unpickled from it, are equal to it; another copy of the same module is not.

    Parameters
    ----------
    module : torch.nn.Module
    event_shape : tuple of int
        The axes of one point; the module maps (batch, *event_shape) to (batch,).
    dtype : str
        The float type of a module without parameters.

    Raises
    ------
    TypeError
        If it is not a module, or if its parameters are not real floating-point numbers.
    ValueError
        If its parameters are on several devices or of several types, or if it cannot be copied.
    """

    @torch.inference_mode(False)
    def __init__(self, module: nn.Module, event_shape: tuple[int, ...], dtype: str):
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        self.event_shape = event_shape
        self.device, self.dtype = _place_and_type(module, getattr(torch, dtype))
        try:
            self._module = copy.deepcopy(module).eval().requires_grad_(False)
        except Exception as error:
            raise ValueError(f"module could not be copied, which freezes its weights in the model: {error}") from error
        self._key = uuid4().hex
        # Conversions that change nothing still take their time.
        on_cpu = self.device.type == "cpu"
        self._takes_arrays_of = _NUMPY_TYPES.get(self.dtype) if on_cpu else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrozenModule) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"{type(self._module).__name__}{self.event_shape}"

    def energy(self, x: np.ndarray) -> np.ndarray:
        """Return the energies of points (*batch, *event_shape), shape batch, in the type of the points."""
        with torch.no_grad():
            energies = self._energies(self._points(x))
        return _as_array(energies, x.shape[: x.ndim - len(self.event_shape)], x.dtype)

    def energy_and_gradient(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return energies and their gradients with regard to the points, in one pass.

        Raises
        ------
        ValueError
            If the module's output has the wrong shape, or does not depend on the points through torch operations.
        """
        with torch.inference_mode(False):  # which enables gradients, too
            points = self._points(x).requires_grad_()
            energies = self._energies(points)
            if not energies.requires_grad:
                raise ValueError(
                    f"the output of module {self!r} has no gradient with regard to its input: it must be computed from "
                    "it by torch operations, without detach() or no_grad()"
                )
            total = energies if len(energies) == 1 else energies.sum()  # a sum costs as much as a layer
            (gradients,) = torch.autograd.grad(total, points)
        batch = x.shape[: x.ndim - len(self.event_shape)]
        return _as_array(energies.detach(), batch, x.dtype), _as_array(gradients, x.shape, x.dtype)

    def check(self, start: np.ndarray, other: np.ndarray, *, with_gradient: bool) -> None:
        """Try the module at two points, alone and as a batch.

        Raises
        ------
        ValueError
            If its output has the wrong shape, or is not finite at the start, or changes from call to call or with the
            other points of the batch.
        """
        alone = self.energy(start)
        together = self.energy(np.stack([start, other]))
        energy = float(alone)
        if not np.isfinite(energy):
            raise ValueError(f"module {self!r} must give a finite energy at the start value, got {energy}")
        if not np.allclose(together[0], alone, rtol=_RELATIVE_TOLERANCE, atol=_RELATIVE_TOLERANCE):
            raise ValueError(
                f"module {self!r} must give a point the same energy in every call and every batch, got {energy} alone "
                f"and {together[0]} beside another point"
            )
        if with_gradient and not np.isfinite(self.energy_and_gradient(start)[1]).all():
            raise ValueError(f"the gradient of module {self!r} must be finite at the start value")

    def _points(self, x: np.ndarray) -> torch.Tensor:
        _use_one_thread_in_workers(os.getpid())
        points = torch.from_numpy(np.array(x, order="C").reshape(-1, *self.event_shape))
        return points if self._takes_arrays_of is x.dtype.type else points.to(self.device, self.dtype)

    def _energies(self, points: torch.Tensor) -> torch.Tensor:
        energies = self._module(points)
        if not isinstance(energies, torch.Tensor):
            raise TypeError(f"module {self!r} must return a tensor, got {type(energies).__name__}")
        if energies.shape != points.shape[:1]:
            raise ValueError(
                f"module {self!r} must map (batch, *shape) to (batch,): for an input of shape {tuple(points.shape)} "
                f"its output must have the shape {tuple(points.shape[:1])}, got {tuple(energies.shape)}"
            )
        return energies


def _as_array(tensor: torch.Tensor, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if tensor.dtype is torch.bfloat16:  # which NumPy lacks
        tensor = tensor.float()
    return np.asarray(tensor.cpu().numpy(), dtype).reshape(shape)


def _place_and_type(module: nn.Module, default: torch.dtype) -> tuple[torch.device, torch.dtype]:
    """Return the device and the float type of the module's parameters and buffers."""
    tensors = list(chain(module.parameters(), module.buffers()))
    devices = {tensor.device for tensor in tensors}
    dtypes = {tensor.dtype for tensor in module.parameters()} | {
        tensor.dtype for tensor in module.buffers() if tensor.is_floating_point()
    }
    if len(devices) > 1:
        raise ValueError(f"the parameters of module must be on one device, got {sorted(map(str, devices))}")
    if len(dtypes) > 1:
        raise ValueError(f"the parameters of module must have one dtype, got {sorted(map(str, dtypes))}")
    dtype = dtypes.pop() if dtypes else default
    if not dtype.is_floating_point:
        raise TypeError(f"the parameters of module must be real floating-point numbers, got {dtype}")
    return (devices.pop() if devices else torch.device("cpu")), dtype


@cache
def _use_one_thread_in_workers(pid: int) -> None:
    """Keep torch to one thread in a process that another one started.

    Workers share the cores among them; and a forked one would wait forever for threads that were not forked with it.
    """
    if parent_process() is not None:
        torch.set_num_threads(1)
