"""From stages to their records, and back: a stage is loaded when it is first asked to encode."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock

from torch import Tensor

from cascade.collecting.record import StageRecord
from cascade.resume import ResumedStage
from cascade.stages.images import ImageSource
from cascade.stages.mapped import MappedStage, load_maps
from cascade.stages.stage import Encoder, Stage
from cascade.stages.towers import Towers
from cascade.storing.errors import CollectionError
from corpora.decoding.reads import known
from pruning_mechanism import TowerError


def recorded(stage: Encoder) -> StageRecord:
    """What is written down of a stage."""
    if isinstance(stage, RecalledStage):
        return stage.record
    if isinstance(stage, Stage):
        lent = stage.texts
        return StageRecord(
            name=stage.name,
            text_name=stage.text_name,
            checkpoint=_checkpoint(stage),
            texts=None if lent is None else _checkpoint(lent),
            reads=stage.reads,
            computes=stage.computes,
        )
    if isinstance(stage, ResumedStage):
        return StageRecord(
            name=stage.name,
            text_name=stage.text_name,
            checkpoint=_checkpoint(stage.stage),
            resumes=_checkpoint(stage.first),
            merged=stage.merged,
            dtype=str(stage.dtype).removeprefix("torch."),
            reads=stage.first.reads,
        )
    return StageRecord(name=stage.name, text_name=stage.text_name)


def check_same(records: Sequence[StageRecord], stages: Sequence[Encoder], where: Path) -> None:
    """Refuse stages that a collection wasn't made with.

    Raises:
        CollectionError: there are more or fewer, or one has other weights or preprocessing, or is
            computed in another type.
    """
    if len(records) != len(stages):
        raise CollectionError(f"{where} was made with {len(records)} stages, not {len(stages)}")
    for place, (record, stage) in enumerate(zip(records, stages, strict=True)):
        if record.name != stage.name:
            own = recorded(stage)
            raise CollectionError(
                f"stage {place} of {where} was {record}, not {own}: {_differing(record, own)}. "
                "Open it with the stage that it was made with, or make another collection"
            )


def _differing(record: StageRecord, own: StageRecord) -> str:
    """In what two stages differ that have different names, as far as can be told."""
    if record.computes == own.computes:
        return "its weights or its preprocessing differ"
    kinds = [each.computes or "float32" for each in (record, own)]
    return (
        f"one is computed in {kinds[0]}, the other in {kinds[1]}, and embeddings of several types "
        "aren't mixed in one collection"
    )


def recalled(
    records: Sequence[StageRecord],
    where: Path,
    towers: Towers,
    only_images: bool = False,
) -> list[Encoder]:
    """The stages of a collection, from the checkpoints that it was made with.

    One that resumes is loaded now, the others when they are first asked to encode.

    Args:
        records: of the stages.
        where: the collection, for messages.
        towers: where and how the stages run.
        only_images: whether they are asked for no texts, so that no text tower is lent to them.

    Raises:
        CollectionError: it isn't known where a checkpoint is, or one that is loaded now can't be
            or isn't what it was.
    """
    loading = Loading(where, towers, only_images)
    for place, record in enumerate(records):
        if record.checkpoint is None:
            raise CollectionError(
                f"it isn't known where stage {place} of {where} ({record}) comes from: pass stages="
            )
    resumed = [record for record in records if record.resumes is not None]
    if not resumed:
        return [RecalledStage(record, loading) for record in records]
    return [
        loading.resumed(record) if record.resumes is not None else loading.stage(record)
        for record in records
    ]


class Loading:
    """Loads the checkpoints of a collection, each once."""

    def __init__(self, where: Path, towers: Towers, only_images: bool = False) -> None:
        self._where = where
        self._towers = towers
        self._only_images = only_images
        self._loaded: dict[tuple[str | None, str | None, str, str | None], Stage] = {}
        self._lock = Lock()

    def stage(self, record: StageRecord) -> Stage | MappedStage:
        """A stage that doesn't resume.

        Raises:
            CollectionError: its checkpoint can't be loaded, or isn't what it was.
        """
        if record.maps is None:
            stage: Stage | MappedStage = self._load(record.checkpoint, record.texts, record)
        else:
            stage = self._mapped(record, self._where / record.maps)
        self._check(record, stage)
        return stage

    def resumed(self, record: StageRecord) -> ResumedStage:
        """A stage that resumes; errors as of `stage`."""
        import torch

        stage, first = (
            self._loaded_from(checkpoint, record.reads) or self._load(checkpoint, None, record)
            for checkpoint in (record.checkpoint, record.resumes)
        )
        resumed = ResumedStage(stage, first, record.merged, getattr(torch, record.dtype))
        self._check(record, resumed)
        return resumed

    def _loaded_from(self, checkpoint: str | None, reads: str) -> Stage | None:
        """A stage that is loaded already, whatever text tower is lent to it."""
        wanted = (checkpoint, reads)
        loaded = self._loaded.items()
        return next((stage for (of, _, read, _), stage in loaded if (of, read) == wanted), None)

    def _mapped(self, record: StageRecord, file: Path) -> MappedStage:
        """A stage behind its maps."""
        try:
            first, *others = load_maps(file)
        except ValueError as error:
            raise CollectionError(f"{self._where} is damaged: {error}") from error
        texts = self._load(record.texts, None, replace(record, computes=None))
        behind = self._load(record.checkpoint, None, record, without_texts=True)
        stage = MappedStage(behind, first, texts)
        for each in others:
            stage = MappedStage(stage, each, texts)
        return stage

    def _load(
        self,
        checkpoint: str | None,
        texts: str | None,
        record: StageRecord,
        without_texts: bool = False,
    ) -> Stage:
        with self._lock:
            wanted = (checkpoint, texts, record.reads, record.computes)
            if wanted not in self._loaded:
                lent = None
                try:
                    if texts is not None and not self._only_images:
                        lent = self._towers.lending(texts)
                    stage = self._towers.again(
                        str(checkpoint),
                        record.computes,
                        resumes=record.resumes is not None,
                        texts=lent,
                        without_texts=without_texts or self._only_images,
                        reads=known(record.reads),
                    )
                except (TowerError, OSError) as error:
                    raise CollectionError(
                        f"a stage of {self._where} was {record}, which can't be loaded: "
                        f"{' '.join(str(error).split())}. Pass stages= if it is somewhere else now"
                    ) from error
                self._loaded[wanted] = stage
            return self._loaded[wanted]

    def _check(self, record: StageRecord, stage: Encoder) -> None:
        if stage.name != record.name:
            raise CollectionError(
                f"a stage of {self._where} was {record}, which is now {stage.name[:12]}: its "
                "weights or its preprocessing have changed. Restore it, or make another collection"
            )


class RecalledStage:
    """An `Encoder` that is known by name, and loaded when it is first asked to encode.

    What it is asked for then raises `CollectionError` if its checkpoint isn't what it was.
    """

    def __init__(self, record: StageRecord, loading: Loading) -> None:
        self.name = record.name
        self.text_name = record.text_name
        self.record = record
        self._loading = loading

    @property
    def stage(self) -> Stage | MappedStage:
        """The stage, which is loaded now if it wasn't."""
        return self._loading.stage(self.record)

    def encode_images(self, images: Sequence[ImageSource]) -> Tensor:
        """L2-normalised float32 [n, d] on the CPU."""
        return self.stage.encode_images(images)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """L2-normalised float32 [n, d] on the CPU."""
        return self.stage.encode_texts(texts)


def _checkpoint(stage: Stage) -> str | None:
    """Where a stage was loaded from."""
    path = str(getattr(stage.model.config, "_name_or_path", "") or "")
    if not path:
        return None
    return str(Path(path).resolve()) if Path(path).is_dir() else path
