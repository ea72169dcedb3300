"""A model out of a configuration and the tensors of files, checked on the way.

Stands under `checkpoint`. Where the files hold the model's own names, as those of almost every
checkpoint do, the tensors are put into the model as they are; only where names must be matched does
transformers load them, which takes several times as long.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.checkpoints.weights import Weights
from pruning_mechanism.families import MODEL_CLASSES, TowerError, family_of
from pruning_mechanism.modeling.consistency import check_tower

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Built:
    """A model, and the names of tensors that it lacks in the files or has no place for."""

    model: PreTrainedModel
    missing: frozenset[str] = frozenset()
    unexpected: frozenset[str] = frozenset()


def build(
    path: str | Path, config: PreTrainedConfig, weights: Weights, dtype: torch.dtype
) -> Built:
    """The model that a configuration describes, with its weights.

    Raises:
        TowerError: configuration and weights don't belong together, or a weight is NaN or infinite.
    """
    names = _check_shape(path, config, weights)
    try:
        # in half precision a class may keep some of its modules in float32: transformers knows
        if dtype not in HALF and weights.tensors.keys() == names:
            built = Built(_filled(config, weights, dtype))
        else:
            built = _matched(config, weights, dtype)
    except Exception as error:  # a wrong entry may lead to any error inside a model
        raise TowerError(f"{path} does not load as a CLIP: {first_line(error)}") from error
    if built.missing:
        raise weights.missing(built.missing)
    return built


def _check_shape(path: str | Path, config: PreTrainedConfig, weights: Weights) -> set[str]:
    """The names of the model's tensors, if configuration and weights have the same sizes.

    Takes no memory.
    """
    for tower in _layered_towers(config):
        try:
            check_tower(tower)
        except ValueError as error:
            raise TowerError(f"{path}: config.json: {error}") from error
        if tower.num_hidden_layers > len(weights.tensors):
            raise TowerError(
                f"{path}: config.json: num_hidden_layers is {tower.num_hidden_layers:,}, but there "
                f"are {len(weights.tensors):,} weights"
            )
    try:
        with torch.device("meta"), no_init_weights():
            empty = MODEL_CLASSES[config.model_type](config)
    except Exception as error:  # as in build
        raise TowerError(
            f"{path}: config.json describes no model that can be built: {first_line(error)}"
        ) from error
    weights.check_sizes(empty)
    return set(empty.state_dict())


def _layered_towers(config: PreTrainedConfig) -> list[Any]:
    """The configurations of the towers of which it is known what their layers may be."""
    if family_of(config).vision is None:
        return []  # its class checks them
    towers = [getattr(config, name, None) for name in ("vision_config", "text_config")]
    return [tower for tower in towers if tower is not None] or [config]


def _filled(config: PreTrainedConfig, weights: Weights, dtype: torch.dtype) -> PreTrainedModel:
    """The model with the tensors in its own names' places; all of them must be there."""
    with torch.random.fork_rng(devices=[]), no_init_weights():  # what is drawn is replaced
        model: PreTrainedModel = MODEL_CLASSES[config.model_type]._from_config(
            copy.deepcopy(config), dtype=dtype
        )
    own = model.state_dict()
    tensors = {name: tensor.to(own[name].dtype) for name, tensor in weights.read().items()}
    model.load_state_dict(tensors, assign=True)
    return model


def _matched(config: PreTrainedConfig, weights: Weights, dtype: torch.dtype) -> Built:
    """The model as transformers loads it, which knows other names that files may have."""
    made: Any = MODEL_CLASSES[config.model_type].from_pretrained(
        None, config=config, state_dict=weights.read(), dtype=dtype, output_loading_info=True
    )
    model, found = made  # a pair, with the loading info
    return Built(model, frozenset(found["missing_keys"]), frozenset(found["unexpected_keys"]))
