"""The tensors of a checkpoint's files, and whether they are all that a model needs.

Stands under `checkpoint`. transformers fills missing tensors with random numbers and says so in a
report that is easily overlooked. Here a tensor that is missing, of another size, or of another
model is an error, raised before any memory is taken: names and sizes are read from the headers.
"""

import math
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from pruning_mechanism.checkpoints.record import first_line, read_object
from pruning_mechanism.families import TowerError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

PREFIXES = ("_orig_mod.", "module.", "model.")
"""What training loops put before all names: torch.compile, DistributedDataParallel, Lightning."""
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that mean nothing wherever they stand: a submodule was compiled or wrapped."""
ADAPTERS = ("base_layer", "modules_to_save", "original_module", "lora_", "ia3_", "oft_", "hada_")
"""What parts of names begin with where PEFT has put its own layers over a model's."""
VISION = {"vision_model", "visual_projection"}
"""What the names of a vision tower's weights begin with in a whole model."""
FLOATS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip
SHOWN = 3


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its name there, its sizes, and the name of its type."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Weights:
    """The tensors in the files of a checkpoint, by the names that the model has for them.

    `stripped` is the prefix that was taken off the names, if any.
    """

    path: str
    tensors: Mapping[str, Stored]
    stripped: str = ""

    @classmethod
    def of(cls, path: str | Path, revision: str | None = None) -> "Weights":
        """Read the headers of the files in a directory or on the hub.

        Raises:
            TowerError: there are none, one is missing or broken, or they hold unmerged adapters.
        """
        found = {
            stored.name: stored for file in _files(path, revision) for stored in _header(path, file)
        }
        _refuse_adapters(path, found)
        names, stripped = stripped_names(found)
        renamed = {new: found[old] for old, new in names.items()}
        if len(renamed) < len(found):
            names, renamed, stripped = {}, found, ""
        return cls(str(path), renamed, stripped)

    @property
    def dtype(self) -> torch.dtype:
        """The type that most numbers have.

        Raises:
            TowerError: there are no floating-point numbers.
        """
        numbers: Counter[str] = Counter()
        for stored in self.tensors.values():
            if stored.dtype in FLOATS:
                numbers[stored.dtype] += math.prod(stored.shape)
        if not numbers:
            raise self._quantised(next(iter(self.tensors), "nothing"))
        return FLOATS[max(FLOATS, key=lambda kind: numbers[kind])]  # of equals the widest

    def read(self) -> dict[str, Tensor]:
        """All tensors, under the model's names."""
        tensors: dict[str, Tensor] = {}
        for file in sorted({stored.file for stored in self.tensors.values()}):
            own = {name: stored for name, stored in self.tensors.items() if stored.file == file}
            with _opened(self.path, file) as opened:
                tensors |= {name: opened.get_tensor(stored.name) for name, stored in own.items()}
        return tensors

    def check_sizes(self, model: nn.Module) -> None:
        """Raise `TowerError` unless the tensors fit into a model, which may be on the meta device.

        Names that only transformers can match, as in old checkpoints, are left to it. It fills what
        it can't match at random, so the files must hold about as many numbers as the model.
        """
        own = model.state_dict()
        wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
        for name in wanted.keys() & self.tensors.keys():
            if own[name].is_floating_point() and self.tensors[name].dtype not in FLOATS:
                raise self._quantised(name)
        wrong = [
            f"{name} is {list(self.tensors[name].shape)}, should be {list(shape)}"
            for name, shape in wanted.items()
            if name in self.tensors and self.tensors[name].shape != shape
        ]
        if wrong:
            raise TowerError(
                f"{self.path}: its weights are not of the sizes that its config.json says: "
                f"{listed(wrong)}"
            )
        missing = [name for name in wanted if name not in self.tensors]
        absent = sum(torch.Size(wanted[name]).numel() for name in missing)
        if absent > sum(torch.Size(stored.shape).numel() for stored in self.tensors.values()):
            raise self.missing(missing)

    def _quantised(self, name: str) -> TowerError:
        kind = self.tensors[name].dtype if name in self.tensors else "absent"
        return TowerError(
            f"{self.path}: {name} is {kind}, not a 16, 32 or 64-bit floating-point number: name "
            "the checkpoint before it was quantised"
        )

    def missing(self, names: Iterable[str]) -> TowerError:
        """The error that says which weights a model needs and the files lack."""
        names = sorted(names)
        like = next(
            (key for name in names for key in self.tensors if key.endswith(f".{name}")), None
        )
        hint = (
            f"; it has {like!r}: save the model that was wrapped, without that prefix"
            if like
            else "; its towers would be random there: get or save the whole checkpoint"
        )
        return TowerError(f"{self.path} lacks weights that its model needs: {listed(names)}{hint}")

    def check_unexpected(self, names: Iterable[str], model: nn.Module) -> list[str]:
        """Names of tensors in the files that are no part of the model, none of them of a tower.

        Args:
            names: tensors that the model has no place for.
            model: the model.

        Raises:
            TowerError: the model's configuration leaves out a part of its tower.
        """
        own = VISION | {name.partition(".")[0] for name in model.state_dict()}
        beside = sorted(names)
        lost = [name for name in beside if name.partition(".")[0] in own and ".pooler." not in name]
        if lost:
            raise TowerError(
                f"{self.path}: its weights hold what its config.json has no place for: "
                f"{listed(lost)}; the tower would not answer as it was trained"
            )
        return beside


def all_finite(tensor: Tensor) -> bool:
    """Whether no number of a tensor is NaN or infinite.

    Their sum is neither unless one of them is, or it overflows: only then are they looked at one by
    one, which takes several times as long.
    """
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def stripped_names(names: Iterable[str]) -> tuple[dict[str, str], str]:
    """Map each name to one without what training loops add to it, and say what they added.

    A prefix is taken off only if all names have it.
    """
    found, stripped = {name: name for name in names}, []
    while prefix := next(
        (known for known in PREFIXES if found and all(n.startswith(known) for n in found.values())),
        None,
    ):
        found = {old: new.removeprefix(prefix) for old, new in found.items()}
        stripped.append(prefix)
    for wrapper in WRAPPERS:
        if any(wrapper in name.split(".") for name in found.values()):
            found = {
                old: ".".join(part for part in new.split(".") if part != wrapper)
                for old, new in found.items()
            }
            stripped.append(f"{wrapper}.")
    return found, "".join(stripped)


def write_tensors(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a safetensors file with the mode that the umask asks for."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    open_up(path)


def open_up(*paths: str | Path) -> None:
    """Give files of one directory the mode that the umask asks for.

    safetensors makes files that only this user may read, and copies of code keep the mode of the
    original. The umask is read off a new file: asking the process for it would change it for all
    threads.
    """
    if not paths:
        return
    probe = Path(paths[0]).with_name(f".{secrets.token_hex(8)}.mode")
    probe.touch(exist_ok=False)
    try:
        for path in paths:
            Path(path).chmod(probe.stat().st_mode & 0o777)
    finally:
        probe.unlink()


def _files(path: str | Path, revision: str | None) -> list[Path]:
    """The safetensors files of a checkpoint."""
    if single := file_of(path, SINGLE, revision):
        return [single]
    index = file_of(path, INDEX, revision)
    if index is None:
        raise TowerError(
            f"{path} does not load as a CLIP: it has no {SINGLE}; weights in other formats, which "
            "may run code, are not read"
        )
    places = read_object(index).get("weight_map")
    names = set(places.values()) if isinstance(places, dict) else ()
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise TowerError(f"{index} must name the file of each tensor in its weight_map")
    found = {name: file_of(path, name, revision) for name in sorted(names)}
    if absent := [name for name, file in found.items() if file is None]:
        raise TowerError(f"{path} is incomplete: {listed(absent)}, named in {INDEX}, not there")
    return [file for file in found.values() if file is not None]


def file_of(path: str | Path, name: str, revision: str | None = None) -> Path | None:
    """The local path of a checkpoint's file, fetched from the hub if need be; None: not there."""
    if Path(path).is_dir():
        return Path(path) / name if (Path(path) / name).is_file() else None
    try:
        found = cached_file(str(path), name, revision=revision)
    except OSError:
        return None
    return Path(found) if found else None


def _header(path: str | Path, file: Path) -> list[Stored]:
    with _opened(path, file) as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return [
            Stored(file, name, tuple(tensor.get_shape()), tensor.get_dtype())
            for name, tensor in slices.items()
        ]


def _opened(path: str | Path, file: Path) -> safe_open:
    try:
        return safe_open(file, "pt")
    except (OSError, SafetensorError) as error:
        reason = first_line(error)
        raise TowerError(f"{path} does not load as a CLIP: {file.name}: {reason}") from error


def _refuse_adapters(path: str | Path, names: Iterable[str]) -> None:
    for name in names:
        parts = name.split(".")
        if ".base_model.model." in f".{name}" or any(p.startswith(ADAPTERS) for p in parts):
            raise TowerError(
                f"{path} holds an adapter (LoRA or the like) that is not merged, such as {name}: "
                "save model.merge_and_unload() of PEFT instead"
            )


def listed(items: Sequence[str]) -> str:
    """The first few items, and how many more there are."""
    more = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
