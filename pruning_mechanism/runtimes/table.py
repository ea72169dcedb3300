"""The one table of runtimes, and how a vision tower gets into one of them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes.compiling import compiler_problem
from pruning_mechanism.runtimes.exports import (
    RECORD,
    Export,
    StaleExportError,
    check_fresh,
    place_in,
    read_export,
    tower_digest,
)
from pruning_mechanism.runtimes.formats import FORMATS, Format
from pruning_mechanism.runtimes.in_torch import TorchRuntime
from pruning_mechanism.runtimes.making import check_exportable, make_export
from pruning_mechanism.runtimes.needs import type_problem
from pruning_mechanism.runtimes.runtime import DTYPES, Dtype, Runtime
from pruning_mechanism.user_cache import kept_directory

AUTO = "auto"
"""What asks for a measurement instead of naming a runtime."""


@dataclass(frozen=True)
class Row:
    """A runtime.

    Attributes:
        name: what `Stage.load` calls it.
        dtypes: that it computes in.
        form: of the graph that it runs; None: it runs the model itself.
    """

    name: str
    dtypes: tuple[Dtype, ...]
    form: Format | None = None

    def check(self, dtype: Dtype, device: str) -> None:
        """Raise `TowerError` if it can't compute in a type on a device of this machine."""
        kind = torch.device(device).type
        own = self._types_on(kind)
        if not own:
            raise TowerError(
                f"runtime {self.name!r} runs on the CPU here, not on {device}: leave the "
                "device out, or use runtime 'torch' or 'compile'"
            )
        if dtype not in self.dtypes:
            named = " or ".join((", ".join(own[:-1]), own[-1]))
            others = [row.name for row in RUNTIMES.values() if dtype in row._types_on(kind)]
            does = f", which {_do(others)}" if others else ", which takes a GPU"
            raise TowerError(f"runtime {self.name!r} computes in {named}, not in {dtype}{does}")
        if self.form is not None:
            self.form.check_runs()
        if self.name == "compile" and kind == "cpu" and (problem := compiler_problem()):
            raise TowerError(problem)
        natively = self.form is None or dtype == "bfloat16"  # graphs in int8 run everywhere
        if natively and (problem := type_problem(dtype, device)):
            raise TowerError(problem)

    def _types_on(self, kind: str) -> tuple[Dtype, ...]:
        """Types that it computes in on a kind of device; none: it doesn't run there."""
        if self.form is not None:
            return self.dtypes if kind == "cpu" else ()
        if kind != "cpu":
            return self.dtypes
        return tuple(dtype for dtype in self.dtypes if dtype in ("float32", "bfloat16"))


def _do(names: Sequence[str]) -> str:
    """Who does it, as in "torch and compile do"."""
    if len(names) == 1:
        return f"{names[0]} does"
    return f"{', '.join(names[:-1])} and {names[-1]} do"


RUNTIMES: Mapping[str, Row] = {
    row.name: row
    for row in (
        Row("torch", ("float32", "float16", "bfloat16")),
        Row("compile", ("float32", "float16", "bfloat16", "float8", "int8")),
        *(Row(form.runtime, form.dtypes, form) for form in FORMATS.values()),
    )
}
"""By name."""


@dataclass(frozen=True)
class Subject:
    """A tower that is to run: the model, float32 unless on a GPU, and where its checkpoint lies.

    `place` is the directory that exports may lie in; None: the checkpoint has none.
    """

    model: PreTrainedModel
    place: Path | None

    @property
    def device(self) -> str:
        """Where torch has it."""
        return str(self.model.device)


def check_known(runtime: str, dtype: str | None, device: str = "cpu") -> None:
    """Raise `TowerError` unless these are names, and this machine can do it.

    To be called before anything is loaded.
    """
    if runtime not in (AUTO, *RUNTIMES):
        known = ", ".join(map(repr, (*RUNTIMES, AUTO)))
        raise TowerError(f"runtime is one of {known}, not {runtime!r}")
    if dtype not in (None, *DTYPES):
        raise TowerError(f"dtype is one of {', '.join(DTYPES)}, or None, not {dtype!r}")
    for name in DTYPES:
        if runtime != AUTO and name == (dtype or "float32"):
            RUNTIMES[runtime].check(name, device)


def make_runtime(subject: Subject, row: Row, dtype: Dtype) -> Runtime:
    """A tower in a runtime: by the export beside its weights, else by one made into the cache.

    Raises:
        StaleExportError: the export beside the weights is of others, or damaged.
        TowerError: this machine can't do it, or the tower can't be exported.
    """
    row.check(dtype, subject.device)
    if row.form is None:
        return TorchRuntime(subject.model, dtype, compiled=row.name == "compile")
    directory = exported(subject, row.form, dtype)
    try:
        return row.form.open(directory, dtype)
    except Exception as error:  # whatever a program may raise that can't load its own graph
        raise TowerError(
            f"{row.name} refuses the export in {directory} ({first_line(error)}): export it anew "
            "with the versions installed here, or load it with runtime 'torch'"
        ) from error


def exported(subject: Subject, form: Format, dtype: Dtype) -> Path:
    """The directory of an export; made in the user's cache if there is none; errors as above."""
    digest = tower_digest(subject.model)
    if (found := lying(subject, form, dtype, digest)) is not None:
        return found[0]
    kept: Dtype = "float32" if dtype == "bfloat16" else dtype  # the same graph
    versions = "-".join(f"{name}-{number}" for name, number in form.versions().items())
    name = f"runtimes/{form.name}-{kept}-{versions}-{digest[:32]}"
    check_exportable(form, kept, 0)
    try:
        place = kept_directory(name, lambda place: make_export(subject.model, form, kept, place))
        if _damaged(place, digest):  # since it was kept: made anew
            shutil.rmtree(place)
            kept_directory(name, lambda place: make_export(subject.model, form, kept, place))
        return place
    except (OSError, RuntimeError) as error:
        raise TowerError(
            f"the graph for runtime {form.runtime!r} can't be kept in the cache ({error}): set "
            "XDG_CACHE_HOME to a directory that can be written, or export it beside the weights"
        ) from error


def _damaged(directory: Path, digest: str) -> bool:
    """Whether an export isn't what was written of the tower that has this digest."""
    try:
        check_fresh(directory, read_export(directory), digest)
    except TowerError:
        return True
    return False


def lying(subject: Subject, form: Format, dtype: Dtype, digest: str) -> tuple[Path, Export] | None:
    """The export that lies beside the weights; None: there is none.

    A graph in float32 does for bfloat16 too.

    Raises:
        TowerError: it is of other weights, or damaged.
    """
    if subject.place is None:
        return None
    for kind in (dtype, "float32") if dtype == "bfloat16" else (dtype,):
        directory = place_in(subject.place, form.name, kind)
        if (directory / RECORD).is_file():
            export = read_export(directory)
            if (export.format, export.dtype) != (form.name, kind):
                raise StaleExportError(
                    f"{directory} holds an export to {export.format} in {export.dtype}: it belongs "
                    f"in {place_in(subject.place, export.format, export.dtype)}"
                )
            check_fresh(directory, export, digest)
            return directory, export
    return None
