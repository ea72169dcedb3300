"""Training itself, by transformers' Trainer: what is trained, how, and when it stops.

Between the views of images and a tower that has learnt. Progress, checkpoints, resumption, mixed
precision, clipping and several processes are the Trainer's and accelerate's.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.optim import AdamW
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from compress.training.held_out import AT, agreement
from compress.training.losses import affinity_loss, contrastive_loss, cosine_loss
from compress.training.processes import processes
from compress.training.progress import Progress
from compress.training.recipe import Recipe
from compress.training.views import Views
from pruning_mechanism.protocols import AnyTower

METRIC = f"agreement@{AT}"
OF_PROJECTION = 0.1
"""Learning rate of the projection, relative to the others': closed form has solved for it already,
and what it has learnt to cancel out comes back in full with the first large step."""
LEAST_SIZE = 1e-3
"""Root mean square that a tensor counts as having at least, so that one of zeros moves too."""


@dataclass(frozen=True)
class Trained:
    """How a training went: agreement@10 on images left out before it and after it, in percent.

    `steps` is how many were made.
    """

    before: float
    after: float
    steps: int


class Patience(EarlyStoppingCallback):
    """Early stopping that a kill doesn't set back: its count is kept with each checkpoint."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop a training that had ended when it was taken up again."""
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class Imitation(nn.Module):
    """A tower that learns to answer as its teacher; only its own weights are in it."""

    def __init__(self, tower: AnyTower, recipe: Recipe):
        super().__init__()
        self.modules_of_tower = nn.ModuleList(tower.modules)
        self.answer = tower.embeddings
        self.recipe = recipe
        self.final = [tower.final]  # in a list, since it is among the modules already
        learns = tower.final if recipe.part == "head" else self
        self.requires_grad_(False)
        learns.requires_grad_(True)

    def train(self, mode: bool = True) -> "Imitation":
        """As of any module; where the head alone learns, all else stays as in inference."""
        super().train(mode and self.recipe.part == "all")
        self.training = mode
        self.final[0].train(mode)
        return self

    def without_features(self, _final: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the projection gets in training: some features are 0, the others larger for it."""
        return (dropout(given[0], self.recipe.dropout, self.training), *given[1:])

    def embed(self, pixels: Tensor) -> Tensor:
        """The tower's embeddings, float32 [b, e], of pixels of any type, wherever they are."""
        weights = next(self.parameters())
        return self.answer(pixels.to(weights)).float()

    def forward(
        self, pixels: Tensor, embeddings: Tensor, texts: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The loss, and what the tower answers [b, e].

        Args:
            pixels: [b, 3, height, width], prepared for the tower.
            embeddings: the teacher's, [b, e].
            texts: a caption's of each, [b, e].
        """
        own, recipe = self.embed(pixels), self.recipe
        loss = recipe.cosine * cosine_loss(own, embeddings)
        if recipe.affinity and len(own) > 1:
            loss = loss + recipe.affinity * affinity_loss(own, embeddings)
        if recipe.contrastive and texts is not None and len(own) > 1:
            loss = loss + recipe.contrastive * contrastive_loss(own, texts)
        return {"loss": loss, "embeddings": own}


def train(tower: AnyTower, learnt: Views, held_out: Views, recipe: Recipe, state: Path) -> Trained:
    """Train a tower in place; it ends as it was in the look at the held out images that was best.

    A training that was interrupted is taken up where `state` has it last.

    Args:
        tower: what to train.
        learnt: what it is trained on.
        held_out: what tells how good it is.
        recipe: how.
        state: directory of the unfinished training, of this one alone.
    """
    student = Imitation(tower, recipe)
    student.eval()
    dropped = tower.final.register_forward_pre_hook(student.without_features)
    trainer = Trainer(
        model=student,
        args=_arguments(recipe, state, next(student.parameters()).device),
        train_dataset=learnt,
        eval_dataset=held_out,
        data_collator=_as_it_is,
        compute_metrics=_judged,
        callbacks=[Patience(recipe.patience), Progress(METRIC)],
        optimizers=(_optimizer(student, tower.final, recipe), None),
    )
    trainer.remove_callback(PrinterCallback)
    before = _measured(student, held_out, recipe.batch_size)
    trainer.train(resume_from_checkpoint=last_whole(state))
    trainer.accelerator.wait_for_everyone()
    student.eval().requires_grad_(False)
    dropped.remove()
    return Trained(before, trainer.state.best_metric or 0.0, trainer.state.global_step)


def last_whole(state: Path) -> str | None:
    """The last checkpoint of an unfinished training that is whole; later ones are removed.

    The Trainer writes `trainer_state.json` at the end of each: a process that is killed before
    leaves a directory without it, or with a part of it.
    """
    while state.is_dir():
        last: str | None = get_last_checkpoint(str(state))
        if last is None:
            break
        try:
            json.loads((Path(last) / TRAINER_STATE_NAME).read_bytes())
        except (OSError, ValueError):
            shutil.rmtree(last)
        else:
            return last
    return None


def _optimizer(student: nn.Module, projection: nn.Module, recipe: Recipe) -> AdamW:
    """AdamW whose steps are relative to what they change.

    The learning rate of a tensor is `learning_rate` times its root mean square, as Adafactor scales
    its steps (arXiv 1804.04235, section 8): what closed form has solved for has weights of any
    size, which steps of one size would drown.
    """
    groups = []
    solved = set(projection.parameters()) if recipe.part == "all" else set()
    for parameter in student.parameters():
        if not parameter.requires_grad:
            continue
        size = max(LEAST_SIZE, float(parameter.detach().square().mean().sqrt()))
        rate = recipe.learning_rate * size * (OF_PROJECTION if parameter in solved else 1)
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
    return AdamW(groups)


def _arguments(recipe: Recipe, state: Path, device: torch.device) -> TrainingArguments:
    every = max(1, recipe.steps // recipe.looks)
    return TrainingArguments(
        output_dir=str(state),
        max_steps=recipe.steps,
        per_device_train_batch_size=max(1, recipe.batch_size // processes()),
        per_device_eval_batch_size=recipe.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=round(recipe.warm_up * recipe.steps),
        max_grad_norm=1.0,
        bf16=recipe.precision == "bfloat16",
        use_cpu=device.type == "cpu",
        ddp_find_unused_parameters=True,  # what chooses tokens isn't differentiable
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model=METRIC,
        greater_is_better=True,
        label_names=["embeddings"],
        remove_unused_columns=False,
        logging_strategy="no",
        report_to="none",
        seed=recipe.seed,
        data_seed=recipe.seed,
    )


def _as_it_is(batch: Any) -> dict[str, Tensor]:
    """`Views` gives whole batches."""
    whole: dict[str, Tensor] = batch
    return whole


def _judged(answers: EvalPrediction) -> dict[str, float]:
    own, full = (torch.as_tensor(found) for found in (answers.predictions, answers.label_ids))
    return {METRIC: agreement(own, full)}


@torch.no_grad()
def _measured(student: Imitation, held_out: Views, batch_size: int) -> float:
    """Agreement@10 before any training.

    The Trainer isn't asked: of several processes one that has evaluated trains for itself alone
    afterwards, without a word (accelerate takes the model for prepared, and doesn't wrap it).
    """
    own, full = [], []
    for start in range(0, len(held_out), batch_size):
        batch = held_out.__getitems__(range(start, min(start + batch_size, len(held_out))))
        own.append(student.embed(batch["pixels"]).cpu())
        full.append(batch["embeddings"])
    return agreement(torch.cat(own), torch.cat(full))
