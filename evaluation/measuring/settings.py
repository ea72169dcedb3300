"""How a stage is loaded to be measured: "stored", or settings as "reads=thumbnail,dtype=int8"."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cascade import Stage
from cascade.stages.running import check_running
from cascade.stages.towers import Towers
from corpora.decoding.reads import Reads, known
from corpora.pixels.on_device import DeviceDecoder
from pruning_mechanism import TowerError

STORED = "stored"
"""A stage as its checkpoint says."""
NAMES = ("reads", "runtime", "dtype", "jpeg")
"""The last is where JPEG files are decoded, "cpu" or "gpu"; by itself a GPU decodes its own."""


class SettingsError(ValueError):
    """Settings that can't be read, or that stages don't have; one line."""


@dataclass(frozen=True)
class Settings:
    """What differs from what a checkpoint says: names and values, in the order of `NAMES`."""

    given: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, text: str) -> "Settings":
        """Read them: "stored", or NAME=VALUE with commas between.

        Raises:
            SettingsError: a name is unknown or comes twice, or a value is missing.
        """
        if text == STORED:
            return cls()
        found: dict[str, str] = {}
        for part in text.split(","):
            name, equals, value = (word.strip() for word in part.partition("="))
            if name not in NAMES or not equals or not value:
                raise SettingsError(
                    f"{part!r} is no setting of a stage: write {STORED}, or for instance "
                    f"{','.join(f'{name}=...' for name in NAMES)}"
                )
            if name in found:
                raise SettingsError(f"{text}: {name} comes twice")
            found[name] = value
        return cls(tuple((name, found[name]) for name in NAMES if name in found))

    @property
    def label(self) -> str:
        """What tells a stage with these settings from others; "" as it is stored."""
        return " ".join(
            f"JPEG by {value.upper()}" if name == "jpeg" else value for name, value in self.given
        )

    @property
    def decodes_on_cpu(self) -> bool:
        """Whether JPEG files are decoded on the CPU wherever the stage is."""
        return ("jpeg", "cpu") in self.given

    def check(
        self,
        device: str,
        runtime: str = "torch",
        attention: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Refuse what no stage can be loaded with on a device, before anything is.

        Args:
            device: where it is to run.
            runtime: what computes it where nothing is said.
            attention: how it is to attend, as `Stage.load` takes it.
            dtype: what it computes in where nothing is said.

        Raises:
            SettingsError: there is no such way to read, runtime or type, it isn't installed, or
                the device decodes no JPEG files.
        """
        given = dict(self.given)
        try:
            _check_decodes(given.get("jpeg", "cpu"), device)
            known(given.get("reads", "full"))
            runs_in = given.get("runtime", runtime), given.get("dtype", dtype)
            check_running(*runs_in, device, attention)
        except (TowerError, ValueError) as error:
            raise SettingsError(f"{self.label}: {error}" if self.label else str(error)) from error

    def loading(self, towers: Towers) -> "Loading":
        """How a stage is loaded with these settings; `towers` says what they don't."""
        given = dict(self.given)
        reads = given.get("reads")
        if "dtype" in given:
            towers = replace(towers, dtypes=(given["dtype"],))
        towers = replace(towers, runtime=given.get("runtime", towers.runtime))
        return Loading(
            towers, None if reads is None else known(reads), self.label, self.decodes_on_cpu
        )


@dataclass(frozen=True)
class Loading:
    """How a stage is loaded.

    Attributes:
        towers: where and how it runs.
        reads: how much of a file it reads; None: as its checkpoint says.
        label: what tells it from the same stage loaded otherwise; "" where nothing has to.
        decodes_on_cpu: whether JPEG files are decoded on the CPU wherever the stage is.
    """

    towers: Towers
    reads: Reads | None = None
    label: str = ""
    decodes_on_cpu: bool = False

    def load(self, path: str, **how: Any) -> Stage:
        """The stage; arguments and errors are those of `Stage.load`."""
        stage = self.towers.load(path, reads=self.reads, **how)
        if self.decodes_on_cpu:
            stage.preparation.decoder = None
        return stage


def _check_decodes(by: str, device: str) -> None:
    if by not in ("cpu", "gpu"):
        raise ValueError(f"jpeg is cpu or gpu, not {by!r}")
    on_gpu = device.startswith("cuda") and DeviceDecoder.on(device) is not None
    if by == "gpu" and not on_gpu:
        raise ValueError(f"{device} decodes no JPEG files here: leave jpeg=gpu out")


def loadings(texts: Sequence[str], towers: Towers, attention: str | None) -> tuple[Loading, ...]:
    """How a stage is loaded by each of some settings, all checked before any stage is.

    Raises:
        SettingsError: settings can't be read, or no stage can be loaded so here.
    """
    several = [Settings.of(text) for text in texts]
    for settings in several:
        dtype = next(iter(towers.dtypes), None)
        settings.check(towers.device, towers.runtime, attention, dtype)
    return tuple(settings.loading(towers) for settings in several)
