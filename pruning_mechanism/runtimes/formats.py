"""The forms that an export may have: which graph it is, what makes it, what runs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes import in_onnxruntime, in_openvino
from pruning_mechanism.runtimes.needs import check_installed
from pruning_mechanism.runtimes.runtime import Dtype, Runtime


@dataclass(frozen=True)
class Format:
    """One of them.

    Attributes:
        name: also that of the directory that exports lie in.
        runtime: what `Stage.load` calls the program that runs it.
        dtypes: that the program computes in.
        needs: libraries to run it.
        write: (an ONNX graph's file, a directory) → its files there.
        open: (a directory, a type) → the runtime.
    """

    name: str
    runtime: str
    dtypes: tuple[Dtype, ...]
    needs: tuple[str, ...]
    write: Callable[[Path, Path], None]
    open: Callable[[Path, Dtype], Runtime]

    def check_runs(self) -> None:
        """Raise `TowerError` if what runs it isn't installed."""
        check_installed(f"runtime {self.runtime!r}", self.needs, self.name)

    def check_made(self, dtype: Dtype) -> None:
        """Raise `TowerError` if it can't be made here in a type."""
        if dtype not in self.dtypes:
            raise TowerError(
                f"{self.runtime} computes in {' or '.join(self.dtypes)} on the CPU, not in "
                f"{dtype}: export to openvino, or load with runtime 'torch'"
            )
        self.check_runs()
        check_installed("an export", ("onnx", "onnxscript"), "onnx")
        if dtype == "int8":
            check_installed("int8", ("nncf", "onnxruntime"), "int8")

    def versions(self) -> dict[str, str]:
        """Of the libraries that make it."""
        made_by = ("torch", "onnx", "onnxscript", *self.needs)
        return {name: version(name) for name in dict.fromkeys(made_by)}


FORMATS: Mapping[str, Format] = {
    form.name: form
    for form in (
        Format(
            "onnx",
            "onnxruntime",
            ("float32", "int8"),
            ("onnxruntime",),
            in_onnxruntime.write,
            in_onnxruntime.OnnxRuntime,
        ),
        Format(
            "openvino",
            "openvino",
            ("float32", "bfloat16", "int8"),
            ("openvino",),
            in_openvino.write,
            in_openvino.OpenVino,
        ),
    )
}
"""By name."""
