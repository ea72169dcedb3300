"""A student before it has learnt: a timm backbone, its first weights, and what prepares its images.

Stands between a name of timm's and the training. The projection behind the backbone is solved for
in closed form before the first step, as of any first stage (`compress.solving.alignment`).
"""

import copy
import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from huggingface_hub import constants
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]
from torch import nn
from transformers import CLIPImageProcessor

from compress.calibrating.calibration import Calibration
from compress.errors import UserError
from pruning_mechanism.checkpoints.preparation import resized_processor
from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.modeling.composed_encoders import backbone, check_vision
from pruning_mechanism.modeling.modeling_composed_clip import (
    ComposedClipVisionConfig,
    ComposedClipVisionModel,
)
from pruning_mechanism.protocols import ImageProcessor, Processor

Attention = Literal["softmax", "sigmoid"]

PREFIX = "timm:"
SCRATCH, PRETRAINED = "scratch", "pretrained"
SETTLING = 16
"""Batches that the running statistics of norms are taken from."""
PATIENCE = 5
"""Seconds to wait for an answer of the hub."""
SIZED = "img_size"
"""The argument that some of timm's models take to be built for images of a size."""


@dataclass(frozen=True)
class Asked:
    """Which student to make.

    Attributes:
        name: `timm:` and a name of timm's.
        weights: `pretrained`, where they can be reached; `scratch`; or a safetensors file.
        image_size: side of its images in pixels.
        attention: of a vision transformer.
        seed: of weights that are drawn.
    """

    name: str
    weights: str = PRETRAINED
    image_size: int = 224
    attention: Attention = "softmax"
    seed: int = 0

    @property
    def architecture(self) -> str:
        """What timm calls it."""
        return self.name.removeprefix(PREFIX)


@dataclass(frozen=True)
class Student:
    """An untrained student.

    `images` prepares its images; `notes` say where its weights come from.
    """

    model: ComposedClipVisionModel
    images: ImageProcessor
    drawn: bool
    notes: tuple[str, ...]


def check_name(name: str) -> None:
    """Raise `UserError` unless `name` is `timm:` and the name of a model of timm's."""
    architecture = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX):
        raise UserError(f"student {name}: write timm:NAME, as in timm:mobilenetv3_small_100")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise UserError(f"student {name}: timm {timm.__version__} has no model of that name{hint}")


def check_weights(weights: str) -> None:
    """Raise `UserError` unless `weights` is one of the words, or a safetensors file."""
    if weights in (SCRATCH, PRETRAINED):
        return
    if not Path(weights).is_file():
        raise UserError(f"weights {weights}: no such file, nor {PRETRAINED} or {SCRATCH}")
    if Path(weights).suffix != ".safetensors":
        raise UserError(f"weights {weights}: only safetensors files are read, never pickles")


def new_student(asked: Asked, dimension: int, like: Processor | None = None) -> Student:
    """Make a student.

    Args:
        asked: which one.
        dimension: length of its embeddings.
        like: the full tower's processor, whose way to prepare images it takes over, but for their
            size, and for mean and deviation where its weights are pretrained.

    Raises:
        UserError: timm can't make it so.
    """
    config = _config(asked, dimension)
    with _drawing(asked.seed):
        model = ComposedClipVisionModel(config)
    weights, note = _pretrained(asked, config)
    if weights is not None:
        model.vision_model.encoder.load_state_dict(weights.state_dict())
    images = _processor(asked.image_size, weights, like)
    model.eval()  # type: ignore[no-untyped-call]
    return Student(model, images, weights is None, (note,))


def _config(asked: Asked, dimension: int) -> ComposedClipVisionConfig:
    """The configuration, with the arguments that the backbone takes for images of this size."""
    problem: Exception | None = None
    for arguments in ({SIZED: asked.image_size}, {}):
        config = ComposedClipVisionConfig(
            architecture=asked.architecture,
            arguments=arguments,
            image_size=asked.image_size,
            projection_dim=dimension,
            sigmoid_attention=asked.attention == "sigmoid",
        )
        try:
            check_vision(config)
            with torch.device("meta"), torch.no_grad():
                pixels = torch.empty(1, 3, asked.image_size, asked.image_size)
                features = backbone(config).eval()(pixels)
        except TypeError as error:  # of models that take no such argument
            problem = problem or error
        except Exception as error:  # each model has its own ways to refuse a size
            problem = error
        else:
            config.hidden_size = features.shape[-1]
            return config
    raise UserError(
        f"student {asked.name}: can't be made for images of {asked.image_size} pixels: "
        f"{first_line(problem or ValueError())}"
    )


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """Weights that are drawn within are the same in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _pretrained(asked: Asked, config: ComposedClipVisionConfig) -> tuple[Any, str]:
    """The backbone with pretrained weights, if there are any, and a note that says which.

    Raises:
        UserError: a file that was named doesn't fit.
    """
    if asked.weights == SCRATCH:
        return None, f"{asked.name}: from scratch"
    own_file = asked.weights != PRETRAINED
    overlay = {"pretrained_cfg_overlay": {"file": asked.weights}} if own_file else {}
    try:
        with _quick_to_give_up():
            made = backbone(config, pretrained=True, **overlay)
    except Exception as error:  # no connection, no such weights, or weights of another shape
        if own_file:
            raise UserError(
                f"weights {asked.weights} doesn't fit {asked.name}: {first_line(error)}"
            ) from error
        return None, f"{asked.name}: pretrained weights can't be reached, so from scratch"
    where = asked.weights if own_file else made.pretrained_cfg.get("tag") or "timm's"
    return made, f"{asked.name}: pretrained weights ({Path(where).name})"


@contextmanager
def _quick_to_give_up() -> Iterator[None]:
    """Within, what isn't on this machine is sought on the hub only if the hub can be reached.

    Else its client would try for half a minute, with a warning each time.
    """
    offline = constants.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # of whichever library carries the request
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _processor(size: int, weights: Any, like: Processor | None) -> ImageProcessor:
    """What prepares a student's images."""
    images: Any
    if like is None:
        square = {"height": size, "width": size}
        images = CLIPImageProcessor(size={"shortest_edge": size}, crop_size=square)
    else:
        images = copy.deepcopy(getattr(like, "image_processor", like))
        images = resized_processor(images, size)
    if weights is not None:
        images.image_mean = list(weights.pretrained_cfg["mean"])
        images.image_std = list(weights.pretrained_cfg["std"])
    own: ImageProcessor = images
    return own


@torch.no_grad()
def settle_norms(model: nn.Module, images: Calibration) -> None:
    """Give batch norms of drawn weights the statistics of real images, in place.

    Without these their features would mean something else in training than in inference.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    momenta: Sequence[float | None] = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
        norm.train()
    whole: Any = model
    for batch in images.first(SETTLING * images.batch_size).batches("norms"):
        whole.vision_model(batch.pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
