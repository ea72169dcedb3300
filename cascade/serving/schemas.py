"""What the API takes and gives, as its description says it."""

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cascade.searching.steps import Step
from cascade.serving.limits import Limits

LIMITS = Limits()
"""Those that the description names; a server may have others."""
LARGEST = 2**63 - 1

Text = Annotated[str, StringConstraints(min_length=1, max_length=LIMITS.text, pattern=r"[^\s]")]
"""A text that isn't empty."""
Number = Annotated[int, Field(ge=0, le=LARGEST, strict=True)]


class Strict(BaseModel):
    """A body with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class SearchRequest(Strict):
    """What is looked for: a text, examples, or both; what is not; and how many hits."""

    text: Text | None = Field(None, description="what is in the image", examples=["two dogs"])
    like: list[Number] = Field(
        [], max_length=LIMITS.parts, description="ids of images that it is like"
    )
    image: str | None = Field(
        None,
        min_length=1,
        description="an image that it is like: the bytes of its file in base64",
        json_schema_extra={"contentEncoding": "base64"},
    )
    without: list[Text] = Field([], max_length=LIMITS.parts, description="what is not in the image")
    k: Annotated[int, Field(strict=True)] = Field(10, ge=1, le=LIMITS.k, description="hits wanted")
    m: Annotated[int, Field(strict=True, ge=1, le=LIMITS.m)] | Literal["auto"] | None = Field(
        None,
        description="candidates that the last stage looks at, by default the collection's own; "
        "auto: as many as the query needs",
    )
    refined: Annotated[bool, Field(strict=True)] = Field(
        False, description="let the last stage also rank whatever else it has encoded so far"
    )


class PathRequest(Strict):
    """A file that lies on the server."""

    path: str = Field(min_length=1, max_length=4096, description="its absolute path")


class RefiningRequest(Strict):
    """How much the last stage encodes in the background; without any limit all."""

    share: float | None = Field(
        None, ge=0, le=1, description="of the images, that it has encoded in the end"
    )
    seconds: float | None = Field(None, gt=0, le=LIMITS.refining, description="for how long")


class ImageEntry(BaseModel):
    """An image of the collection."""

    id: int = Field(description="stays the same as long as the image does")
    key: str = Field(description="what the image is called in its collection")
    image: str = Field(description="where the image is, relative to the server")
    thumbnail: str = Field(description="where its thumbnail is")


class ImagesAnswer(BaseModel):
    """Some images, in the order in which they were added."""

    images: list[ImageEntry]


class HitEntry(ImageEntry):
    """An image that was found."""

    score: float = Field(description="cosine similarity")
    stage: int = Field(description="the stage that ranked it; 0 is the first")
    probability: float | None = Field(
        None,
        description="calibrated chance that it is among the full tower's own k best, which says "
        "nothing of how well these match; none: it isn't calibrated for this k",
    )


class StepEntry(BaseModel):
    """What a stage did for a search."""

    stage: int = Field(description="0 is the first")
    images: int = Field(description="that it ranked")
    encoded: int = Field(description="of these, that it encoded for this search")
    encoding_seconds: float
    ranking_seconds: float

    @classmethod
    def of(cls, step: Step) -> "StepEntry":
        """The entry of a step."""
        return cls(
            stage=step.stage,
            images=step.images,
            encoded=step.encoded,
            encoding_seconds=step.encoding_seconds,
            ranking_seconds=step.ranking_seconds,
        )


class SearchAnswer(BaseModel):
    """Hits, best first, and what was done for them."""

    hits: list[HitEntry]
    seconds: float = Field(description="that the search took")
    embedding_seconds: float = Field(description="of these, for what is looked for")
    steps: list[StepEntry] = Field(description="what each stage did, the first stage first")
    matches: bool | None = Field(
        None,
        description="false: nothing in the collection matches the text well, as far as scores "
        "tell; none: that isn't known, as of the first stage's hits, or of examples",
    )


class StageEntry(BaseModel):
    """How far a stage is."""

    name: str = Field(description="fingerprint of its weights and preprocessing")
    encoded: int = Field(description="images that it has encoded, as far as it is stored")
    share: float = Field(description="of all images")


class RefiningEntry(BaseModel):
    """What the background does."""

    state: str = Field(description="working, done, stopped, or why it ended")
    encoded: int = Field(description="images that it has encoded since it was started")
    share: float | None = Field(description="of the images, that is encoded in the end")
    seconds: float | None = Field(description="for how long")


class RefiningAnswer(BaseModel):
    """What the background does now; none: it wasn't asked for."""

    refining: RefiningEntry | None


class SkippedEntry(BaseModel):
    """A file without an embedding."""

    key: str
    reason: str


class SkippedAnswer(BaseModel):
    """Some of them, and how many there are."""

    skipped: list[SkippedEntry]
    count: int = Field(description="of all")


class StatusAnswer(BaseModel):
    """What the collection holds, and what the server does."""

    collection: str = Field(description="the name of its directory")
    images: int = Field(description="that can be found")
    skipped: dict[str, int] = Field(description="images that were skipped, by reason")
    stages: list[StageEntry]
    m: list[int] = Field(description="candidates handed from each stage to the next")
    calibrated: int | None = Field(
        description="for how many hits at most m may be auto; none: it may not"
    )
    waiting: int = Field(description="embeddings of later stages that are not stored yet")
    precision: str = Field(description="what embeddings are kept in")
    nbytes: int = Field(description="on disk")
    requests: int = Field(description="that are being answered, this one included")
    uploads: bool = Field(description="whether images may be uploaded")
    token: bool = Field(description="whether a token is needed")
    longest_body: int = Field(description="bytes that a request may have")
    refining: RefiningEntry | None = Field(description="none: it wasn't asked for")


class AddedAnswer(BaseModel):
    """The image that was added."""

    id: int
    new: bool = Field(description="false: it was there already")
    image: str
    thumbnail: str


class ErrorAnswer(BaseModel):
    """Why a request wasn't answered, in one line."""

    error: str


def decoded(image: str) -> bytes | None:
    """The bytes of base64; None: it is none."""
    try:
        return base64.b64decode(image.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None


def problem_of(errors: Any) -> str:
    """What is wrong with a request, in one line, without what was sent."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = " ".join(str(first["msg"]).split())
    line = f"{place}: {message}" if place else message
    return line.encode("ascii", "backslashreplace").decode()
