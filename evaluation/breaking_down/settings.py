"""How a stage is loaded to be timed: "stored", or settings such as "reads=thumbnail,dtype=int8"."""

from dataclasses import dataclass

from cascade.running import check_running
from corpora.decoding.reads import known
from pruning_mechanism import TowerError

STORED = "stored"
"""A stage as its checkpoint says."""
NAMES = ("reads", "runtime", "dtype")


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
        return " ".join(value for _, value in self.given)

    def check(self, device: str) -> None:
        """Refuse what no stage can be loaded with on a device, before anything is.

        Raises:
            SettingsError: there is no such way to read, runtime or type, or it isn't installed.
        """
        given = dict(self.given)
        try:
            known(given.get("reads", "full"))
            check_running(given.get("runtime", "torch"), given.get("dtype"), device, None)
        except (TowerError, ValueError) as error:
            raise SettingsError(f"{self.label}: {error}") from error
