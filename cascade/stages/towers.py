"""Where and how the stages of a cascade run: device, runtime, types, batch size."""

from dataclasses import dataclass
from typing import Any

from cascade.stages.stage import Stage


@dataclass(frozen=True)
class Towers:
    """How stages are loaded.

    Attributes:
        device: where the towers run, as torch names it.
        runtime: what computes vision towers, as `Stage.load` takes it.
        batch_size: images or texts that pass through a tower at once.
        dtypes: what vision towers compute in, one for all stages or one each; none: float32.
    """

    device: str = "cpu"
    runtime: str = "torch"
    batch_size: int = 32
    dtypes: tuple[str, ...] = ()

    def load(self, path: str, place: int = 0, **how: Any) -> Stage:
        """A stage of a new cascade; errors are those of `Stage.load`.

        Args:
            path: of its checkpoint.
            place: of the stage in the cascade.
            how: further arguments of `Stage.load`.
        """
        dtype = self.dtypes[place] if self.dtypes else self._usual
        return Stage.load(
            path, self.device, self.batch_size, runtime=self.runtime, dtype=dtype, **how
        )

    def again(self, path: str, computes: str | None, resumes: bool = False, **how: Any) -> Stage:
        """A stage whose embeddings are there already, loaded so that it gives the same.

        Args:
            path: of its checkpoint.
            computes: the runtime and type that alone give the same, as `Stage.computes` says.
            resumes: whether it goes on from another one's states, which torch alone does.
            how: further arguments of `Stage.load`.
        """
        runtime, dtype = ("torch", None) if resumes else (self.runtime, self._usual)
        if computes is not None:
            runtime, _, dtype = computes.partition(" ")
        return Stage.load(path, self.device, self.batch_size, runtime=runtime, dtype=dtype, **how)

    def lending(self, path: str) -> Stage:
        """A stage whose text tower alone is asked, so that its vision tower needs no runtime."""
        return Stage.load(path, self.device, self.batch_size, runtime="torch")

    @property
    def _usual(self) -> str | None:
        """What isn't told to be another type is computed in: float32, so that its name stays."""
        return None if self.runtime == "torch" else "float32"
