"""Whether torch can compute on a device, before any work starts."""

import torch

from compress.errors import UserError
from pruning_mechanism.checkpoints.record import first_line


def check_device(name: str) -> None:
    """Raise `UserError` unless torch can compute on the device `name` on this machine."""
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        raise UserError(f"the device {name} is not available on this machine: {reason}") from error
