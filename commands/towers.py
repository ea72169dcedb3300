"""Where and how towers run: the flags of every command that loads stages."""

from dataclasses import dataclass
from typing import Literal

from commands.flags import ConfigOption

RuntimeName = Literal["torch", "compile", "onnxruntime", "openvino", "auto"]
DtypeName = Literal["float32", "float16", "bfloat16", "float8", "int8"]


@dataclass(frozen=True)
class TowersOptions(ConfigOption):
    """Where the towers run, and what computes their images."""

    device: str = "cpu"
    """where the towers run: cpu, cuda, mps"""
    runtime: RuntimeName = "torch"
    """what computes vision towers; auto: the one measured fastest here. Results stay the same"""
