"""What a collection knows of each of its images, beside the embeddings."""

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image of a collection. `key` names it in hits; `uri` says where to open it again."""

    key: str
    uri: str
    size: int | None = None  # bytes of the file
    modified: int | None = None  # its mtime in nanoseconds
    digest: str | None = None  # BLAKE2b-128 of its bytes, or of their ends: see photos.identity
    reason: str | None = None  # why it was skipped; None if it is there
    metadata: str | None = None  # JSON, as given

    @property
    def captions(self) -> list[str]:
        """Those that its metadata holds: a text or a list of them, by the name captions."""
        try:
            entries = json.loads(self.metadata or "")
        except ValueError:
            return []
        found = entries.get("captions") if isinstance(entries, dict) else None
        several = found if isinstance(found, list) else [found]
        return [text for text in several if isinstance(text, str) and text.strip()]
