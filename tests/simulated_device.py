"""A device without float64, as Apple's GPUs are, that tests can have on any machine.

Within `no_float64()` tensors made on or moved to its device say that they are there; they are
computed on the CPU. What such a device refuses is refused here: float64, numpy, and tensors of two
devices in one operation.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("mps:0")
MIXING = (Tensor.copy_, Tensor.__getitem__)
"""What may take tensors of two devices; numbers without a dimension always may be."""


class Elsewhere(Tensor):
    """A tensor on the device."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})

    def __deepcopy__(self, memo):
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied


class Simulated(TorchFunctionMode):
    """Sees what is made on the device and moved to it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


def computed(function, args: tuple, kwargs: dict):
    """An operation's result, on the device if its inputs or the device that it names are."""
    given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    there = [each for each in given if isinstance(each, Elsewhere)]
    if function == Tensor.device.__get__ and there:
        return DEVICE
    if function is torch._has_compatible_shallow_copy_type:
        return len(there) in (0, len(given))
    if function is Tensor.numpy and there:
        raise TypeError(f"a tensor on {DEVICE} is no array")
    on_device = bool(there)
    if function is Tensor.cpu:
        on_device = False
    elif function is Tensor.to:
        named = [each for each in (*args[1:], *kwargs.values()) if _device_of(each) is not None]
        on_device = _is_there(named[0]) if named else on_device
        args = (args[0], *(part for each in args[1:] for part in _on_cpu(each)))
    elif "device" in kwargs and kwargs["device"] is not None:
        on_device = _is_there(kwargs["device"])
    elif function is Tensor.copy_:
        on_device = isinstance(args[0], Elsewhere)
    elif there and function not in MIXING:
        here = [each for each in given if not isinstance(each, Elsewhere) and each.ndim]
        if here and function is not torch.autograd.grad:
            raise RuntimeError(f"{function}: tensors on the CPU and on {DEVICE}")
    if _is_there(kwargs.get("device")):
        kwargs = {**kwargs, "device": "cpu"}
    with torch._C.DisableTorchFunctionSubclass():
        found = function(*args, **kwargs)
        return tree_map(lambda each: _placed(each, on_device), found, is_leaf=_is_size)


def _is_size(found) -> bool:
    return isinstance(found, torch.Size)


def _placed(found, on_device: bool):
    if not isinstance(found, Tensor) or isinstance(found, Elsewhere) == on_device:
        return found
    if on_device and found.dtype == torch.float64:
        raise TypeError("this device has no float64")
    return found.as_subclass(Elsewhere if on_device else Tensor)


def _device_of(named) -> torch.device | None:
    if isinstance(named, Tensor):
        return DEVICE if isinstance(named, Elsewhere) else torch.device("cpu")
    return torch.device(named) if isinstance(named, str | torch.device) else None


def _on_cpu(named) -> tuple:
    """What `Tensor.to` gets for one of its arguments, the device apart."""
    if isinstance(named, Tensor):
        return ("cpu", named.dtype)
    return ("cpu",) if _is_there(named) else (named,)


def _is_there(named) -> bool:
    device = _device_of(named)
    return device is not None and device.type == DEVICE.type


@contextmanager
def no_float64() -> Iterator[str]:
    """Within the context there is such a device; its name."""
    with Simulated():
        yield str(DEVICE)
