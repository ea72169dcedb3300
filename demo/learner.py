"""The model that demo.train trains, its losses, its optimisers, and how all of that is kept.

One step of a Learner is contrastive learning as in CLIP, plus recognising the phrases of the
captions from the image alone.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, log_softmax
from transformers import CLIPProcessor

from demo.batches import Batch
from demo.network import build_model, embed_images, embed_texts
from demo.optimizers import Muon
from pruning_mechanism.checkpoints.weights import open_up

LARGEST_SCALE = 100.0  # of the logits, as in CLIP
LARGEST_GRADIENT = 5.0


@dataclass(frozen=True)
class Rates:
    """Peak learning rates, weight decay, and the weight of the phrases in the loss."""

    muon: float
    adam: float
    weight_decay: float
    phrases: float


@dataclass(frozen=True)
class Losses:
    """What a step cost, in nats: contrastive, and recognising the phrases."""

    contrastive: float
    phrases: float


def contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """CLIP's symmetric loss, each of an image's captions in turn among the others' captions.

    images [B, D], texts [B, C, D], scale [] → mean cross entropy [] over both directions.
    """
    logits = scale * torch.einsum("id,tcd->cit", images, texts)
    target = torch.arange(len(images), device=images.device).expand(len(logits), -1)
    return (cross_entropy(logits, target) + cross_entropy(logits.mT, target)) / 2


def recognition_loss(logits: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """Cross entropy [] of phrase logits [B, P] against the phrases said [B, P], evenly shared.

    Equation 2 of arXiv 2411.03313, without its weights for rare words.
    """
    share = said / said.sum(1, keepdim=True).clamp(min=1)
    return -(share * log_softmax(logits, 1)).sum(1).mean()


def bfloat16_is_fast(device: str) -> bool:
    """Whether the hardware computes in bfloat16; a CPU that only imitates it is 20 × slower."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class Learner:
    """A CLIP in training. `steps` counts the steps taken."""

    def __init__(self, processor: CLIPProcessor, phrases: int, rates: Rates, device: str):
        self.processor, self.rates, self.device = processor, rates, device
        self.half = bfloat16_is_fast(device)
        # On a CPU with bfloat16, plain matrix products beat the fused attention at 16 dimensions.
        attention = "eager" if self.half and device == "cpu" else "sdpa"
        self.model = build_model(len(processor.tokenizer), attention)
        self.model.to(device)  # type: ignore[arg-type]  # to mypy what wraps it is no method
        pooled = self.model.visual_projection.in_features
        self.recogniser = torch.nn.Linear(pooled, phrases).to(device)
        self.parameters = dict(self.model.named_parameters())
        self.parameters |= dict(self.recogniser.named_parameters(prefix="head"))
        self.optimizers = self._optimizers()
        self.steps = 0

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        hidden, decayed, rest = [], [], []
        for name, parameter in self.parameters.items():
            if ".layers." in name and parameter.ndim == 2:
                hidden.append(parameter)
            elif parameter.ndim >= 2 and "embedding" not in name:
                decayed.append(parameter)
            else:
                rest.append(parameter)
        decay = self.rates.weight_decay
        groups = [
            {"params": decayed, "weight_decay": decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        return {
            "muon": Muon(hidden, self.rates.muon, weight_decay=decay),
            "adam": torch.optim.AdamW(groups, self.rates.adam, betas=(0.9, 0.98)),
        }

    def step(self, batch: Batch, pace: float) -> Losses:
        """Learns from a batch, at `pace` times the peak learning rates."""
        self.model.train()
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.half):
            images, pooled = embed_images(self.model, self._pixels(batch.pixels))
            texts = embed_texts(self.model, batch.tokens.flatten(0, 1).to(self.device))
            texts = texts.unflatten(0, batch.tokens.shape[:2])
            contrastive = contrastive_loss(images, texts, self.model.logit_scale.exp())
            phrases = recognition_loss(self.recogniser(pooled), batch.phrases.to(self.device))
            loss = contrastive + self.rates.phrases * phrases
        loss.backward()
        self._update(pace)
        self.steps += 1
        return Losses(contrastive.item(), phrases.item())

    def _update(self, pace: float) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), LARGEST_GRADIENT)
        for optimizer, peak in zip(
            self.optimizers.values(), (self.rates.muon, self.rates.adam), strict=True
        ):
            for group in optimizer.param_groups:
                group["lr"] = peak * pace
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(LARGEST_SCALE))

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, S, S, 3] → [B, 3, S, S], normalised as the processor does it."""
        prepare = self.processor.image_processor
        mean, std = (
            torch.tensor(values, device=self.device)
            for values in (prepare.image_mean, prepare.image_std)
        )
        scaled = (images.to(self.device).float() / 255 - mean) / std
        return scaled.permute(0, 3, 1, 2).contiguous()

    @torch.inference_mode()
    def similarities(
        self, images: Iterator[torch.Tensor], captions: Sequence[str], at_once: int = 250
    ) -> torch.Tensor:
        """Cosine similarities [Q, N] of Q captions and N images, given as uint8 [., S, S, 3]."""
        self.model.eval()
        seen = [embed_images(self.model, self._pixels(part))[0] for part in images]
        read = []
        for start in range(0, len(captions), at_once):
            tokens = self.processor.tokenizer(
                list(captions[start : start + at_once]),
                padding=True,
                truncation=True,
                return_tensors="pt",
            )
            read.append(embed_texts(self.model, tokens["input_ids"].to(self.device)))
        return (torch.cat(read) @ torch.cat(seen).T).cpu()

    def save(self, path: Path, recipe: dict[str, str]) -> None:
        """Keeps all that going on needs in one safetensors file, with the recipe it came from."""
        tensors = {f"weights/{name}": p.detach() for name, p in self.parameters.items()}
        names: dict[torch.Tensor, str]
        names = {parameter: name for name, parameter in self.parameters.items()}
        for kind, optimizer in self.optimizers.items():
            for parameter, state in optimizer.state.items():
                tensors |= {f"{kind}/{key}/{names[parameter]}": t for key, t in state.items()}
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, {"steps": str(self.steps), "recipe": json.dumps(recipe)})
        open_up(partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Takes up what `save` has kept."""
        with safe_open(path, "pt", device=self.device) as file:
            self.steps = int(file.metadata()["steps"])
            for key in file.keys():  # noqa: SIM118 - a safetensors file is no dict
                kind, _, rest = key.partition("/")
                if kind == "weights":
                    self.parameters[rest].data.copy_(file.get_tensor(key))
                else:
                    field, _, name = rest.partition("/")
                    state = self.optimizers[kind].state[self.parameters[name]]
                    state[field] = file.get_tensor(key)


def recipe_kept(path: Path) -> dict[str, str]:
    """The recipe of a training that `Learner.save` has kept."""
    with safe_open(path, "pt") as file:
        recipe: dict[str, str] = json.loads(file.metadata()["recipe"])
    return recipe
