"""What lets transformers' pipelines that classify images find a whole model's class.

Part of every checkpoint whose modelling code lies beside its weights.
"""

import os
from typing import Any


class FoundByPipelines:
    """A model whose directory names its class for zero-shot image classification, too."""

    config: Any  # the family's own
    _auto_class: str | None

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> None:
        """As transformers', and pipelines that classify images find a whole model's class too."""
        if self._auto_class is not None and hasattr(self, "get_text_features"):
            kind = type(self)
            place = f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"
            known = getattr(self.config, "auto_map", None) or {}
            self.config.auto_map = known | {"AutoModelForZeroShotImageClassification": place}
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
