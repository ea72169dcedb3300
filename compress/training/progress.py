"""A bar over the steps of a training, like this project's other bars."""

from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Progress(TrainerCallback):
    """Shows steps, rate, time left and the last look at the images held out.

    Of several processes only the first shows it.
    """

    def __init__(self, metric: str):
        """Make it.

        Args:
            metric: what is shown of a look.
        """
        self.metric = metric
        self.bar: tqdm[Any] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begin where the training does, which may have been taken up again."""
        if state.is_world_process_zero:
            done = state.global_step
            self.bar = tqdm(total=state.max_steps, initial=done, desc="training", unit="step")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Move on."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Say how good the tower is."""
        if self.bar is not None:
            value = given["metrics"][f"eval_{self.metric}"]
            self.bar.set_postfix_str(f"{self.metric} {value:.1f}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Leave the bar where it is."""
        if self.bar is not None:
            self.bar.close()
