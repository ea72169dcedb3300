"""What computes a stage's vision tower: what was asked for, and what was found.

Between `pruning_mechanism.runtimes` and the stage.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from pruning_mechanism import TowerError, read_record
from pruning_mechanism.checkpoints.from_open_clip.converting import directory_of
from pruning_mechanism.encoding import tower_of
from pruning_mechanism.runtimes import (
    AUTO,
    DTYPES,
    RUNTIMES,
    Dtype,
    Runtime,
    RuntimeChoice,
    Subject,
    check_chosen,
    check_known,
    choose_runtime,
    make_runtime,
)


@dataclass(frozen=True)
class InRuntime:
    """A vision tower in a runtime, and why in that one."""

    runtime: Runtime
    choice: RuntimeChoice


@dataclass(frozen=True)
class Asked:
    """A runtime and a type that were asked for, and that this machine knows."""

    runtime: str
    dtype: Dtype | None

    @property
    def plain(self) -> bool:
        """Whether the model runs as it is loaded."""
        return self.runtime == "torch" and self.dtype is None

    @property
    def exact(self) -> bool:
        """Whether the model must be loaded in float32, which runtimes start from."""
        return not self.plain

    def find(self, model: PreTrainedModel, path: str | Path, batch_size: int) -> InRuntime | None:
        """A loaded model's vision tower in the runtime; None: the model runs as it is.

        Args:
            model: in float32.
            path: what it was loaded from, where exports may lie.
            batch_size: images in a batch, for a measurement.

        Raises:
            TowerError: as `Stage.load`.
        """
        if self.plain:
            return None
        place = Path(directory_of(path))
        subject = Subject(model, place if place.is_dir() else None)
        if self.runtime == AUTO:
            return InRuntime(*choose_runtime(subject, self.dtype, batch_size))
        runtime = make_runtime(subject, RUNTIMES[self.runtime], self.dtype or "float32")
        return InRuntime(runtime, RuntimeChoice.of(runtime))


def asked_of(
    path: str | Path, runtime: str | None, dtype: str | None, device: str, attention: str | None
) -> Asked:
    """What is asked for, or else what the record in a checkpoint's directory says.

    An attention asks for torch, which alone has several. The other arguments, and errors, are those
    of `check_running`.
    """
    if runtime is None and attention is None:
        record = read_record(directory_of(path))
        if record is not None and (record.runtime, record.dtype) != ("torch", None):
            try:
                return check_running(record.runtime, dtype or record.dtype, device, None)
            except TowerError as error:
                raise TowerError(
                    f"{path} was made to run in {record.runtime}, {record.dtype or 'float32'}, "
                    f"which can't be done here: {error}; or load it with runtime='torch'"
                ) from error
    return check_running(runtime or "torch", dtype, device, attention)


def check_running(runtime: str, dtype: str | None, device: str, attention: str | None) -> Asked:
    """What is asked for, if this machine can do it.

    Raises:
        TowerError: there is no such runtime or type, something is missing, or an attention is asked
            for that the runtime doesn't read.
    """
    check_known(runtime, dtype, device)
    kind = next((kind for kind in DTYPES if kind == dtype), None)
    if runtime == AUTO and kind is not None:
        check_chosen(kind, device)
    if attention is not None and (runtime != "torch" or dtype not in (None, "float32")):
        raise TowerError(
            f"attention={attention!r} is of towers that torch computes in their own type, not of "
            f"runtime={runtime!r}, dtype={dtype!r}: leave one out"
        )
    return Asked(runtime, kind)


def running(model: PreTrainedModel, found: InRuntime | None) -> RuntimeChoice:
    """What computes a stage's vision tower."""
    if found is not None:
        return found.choice
    vision = next(tower_of(model).modules[0].parameters())
    return RuntimeChoice("torch", str(vision.dtype).removeprefix("torch."))
