"""Where results will run: a model there, so that it can be timed, and what there must be for it."""

import torch
from transformers import PreTrainedModel

from compress.choices import Deployment
from pruning_mechanism.checkpoints.checkpoint import in_dtype
from pruning_mechanism.deployed.tower import Deployed, check_deployable


def deployed(
    model: PreTrainedModel, deployment: Deployment, dtype: torch.dtype | None = None
) -> Deployed:
    """A tower where it will run.

    Args:
        model: as it is computed here.
        deployment: what it will run in.
        dtype: what it is computed in once it is loaded, where the deployment says nothing of it;
            None: as here.
    """
    if deployment.plain:
        return Deployed(in_dtype(model, dtype or model.dtype))
    return Deployed(model, deployment.runtime, deployment.dtype)


def check_deployment(deployment: Deployment, device: str) -> None:
    """Raise `TowerError` unless results on this device can be timed where they will run."""
    if not deployment.plain:
        check_deployable(deployment.runtime, deployment.dtype, device)
