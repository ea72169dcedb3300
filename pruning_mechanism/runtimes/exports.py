"""Exports: graphs of a tower in directories of their own, each with a record of what it is of.

An export of `results/first` lies in `results/first/onnx/float32` or `results/first/openvino/int8`;
one that `Stage.load` makes itself lies in the user's cache. A record names the tower by its
weights and what its configuration computes, so an export of what a checkpoint was before is
refused.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers import PreTrainedModel

from pruning_mechanism.checkpoints.identity import computed, files_fingerprint, weights_digest
from pruning_mechanism.checkpoints.record import read_fields
from pruning_mechanism.encoding import tower_of
from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes.parity import Parity

RECORD = "runtime.json"


class StaleExportError(TowerError):
    """An export that isn't of what the checkpoint is now."""


@dataclass(frozen=True)
class Export:
    """What an export is of, what made it, and how close its embeddings are to torch's in float32.

    `noise_…` is parity on noise, `images_…` on calibration images, of which there are none (0)
    where `Stage.load` made it. `closing` says what was done to the projection, `left` which
    modules int8 leaves in float32, `calibration` which images it was calibrated on.
    """

    format: str
    dtype: str
    tower: str
    versions: dict[str, str]
    noise_images: int
    noise_difference: float
    noise_least: float
    noise_cosine: float
    images: int = 0
    images_difference: float = 0.0
    images_least: float = 1.0
    images_cosine: float = 1.0
    closing: str = "as it was"
    left: tuple[str, ...] = ()
    calibration: str = "none"
    files: dict[str, str] = field(default_factory=dict)

    @property
    def noise(self) -> Parity:
        """Parity on noise."""
        return Parity(self.noise_images, self.noise_difference, self.noise_least, self.noise_cosine)

    @property
    def on_images(self) -> Parity | None:
        """Parity on calibration images; None if there were none."""
        if not self.images:
            return None
        return Parity(self.images, self.images_difference, self.images_least, self.images_cosine)

    def write(self, directory: Path) -> None:
        """Write it into the directory of the export."""
        text = json.dumps(asdict(self), indent=2, allow_nan=False)
        (directory / RECORD).write_text(text + "\n")


def tower_digest(model: PreTrainedModel) -> str:
    """What identifies a vision tower: the SHA-256 of its weights and of what its entries compute.

    Loaded in float32, a checkpoint has the same on every machine.
    """
    tower = tower_of(model)
    entries = json.dumps(computed(tower.config), sort_keys=True, default=str)
    shape = hashlib.sha256(entries.encode())
    return hashlib.sha256(
        f"{shape.hexdigest()} {weights_digest(tower.modules)}".encode()
    ).hexdigest()


def place_in(checkpoint: Path, form: str, dtype: str) -> Path:
    """Where an export lies beside a checkpoint's weights."""
    return checkpoint / form / dtype


def read_export(directory: Path) -> Export:
    """The record of an export.

    Raises:
        TowerError: it isn't there, or damaged.
    """
    return read_fields(directory / RECORD, Export)


def check_fresh(directory: Path, export: Export, digest: str) -> None:
    """Raise `StaleExportError` unless an export is of the tower that has this digest."""
    if export.tower != digest:
        raise StaleExportError(
            f"{directory} is an export of other weights or settings than the checkpoint has now "
            f"({export.tower[:12]}, not {digest[:12]}): make it again, with "
            f"{again(directory, export)}, or delete it"
        )
    found = {name: _sha(directory / name) for name in export.files}
    if found != export.files:
        changed = ", ".join(sorted(name for name in found if found[name] != export.files[name]))
        raise StaleExportError(
            f"{directory} is not as it was written ({changed}): make it again, with "
            f"{again(directory, export)}, or delete it"
        )


def again(directory: Path, export: Export) -> str:
    """The command that makes an export anew."""
    return (
        f"python -m pruning_mechanism.export {directory.parent.parent} --to {export.format} "
        f"--dtype {export.dtype} --overwrite"
    )


def digests(directory: Path) -> dict[str, str]:
    """The SHA-256 of each file in an export's directory."""
    return {file.name: _sha(file) for file in sorted(directory.iterdir()) if file.is_file()}


def _sha(file: Path) -> str:
    return files_fingerprint([file]) if file.is_file() else "missing"
