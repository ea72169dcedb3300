"""What sentence-transformers reads beside a model: two files, so that it embeds as a stage does.

Without them it finds out a whole model by itself, but takes hidden states of a vision tower alone
for its embeddings, and computes in half precision on the CPU what is stored so.
"""

import json
from pathlib import Path

from transformers import PreTrainedModel

from pruning_mechanism.families import family_of

MODULES, SETTINGS = "modules.json", "sentence_bert_config.json"
_STEPS = (
    ("", "sentence_transformers.models.Transformer"),
    ("1_Normalize", "sentence_transformers.models.Normalize"),
)


def describe(model: PreTrainedModel, directory: Path) -> None:
    """Write into a model's directory how sentence-transformers embeds images, and texts, by it."""
    modalities = {"image": _how(model, "image")}
    if hasattr(model, "get_text_features"):
        modalities["text"] = _how(model, "text")
    settings = {
        "transformer_task": "feature-extraction",
        "modality_config": modalities,
        "module_output_name": "sentence_embedding",
        "model_kwargs": {"dtype": "float32"},
    }
    steps = [
        {"idx": place, "name": str(place), "path": path, "type": kind}
        for place, (path, kind) in enumerate(_STEPS)
    ]
    for name, content in ((MODULES, steps), (SETTINGS, settings)):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")


def _how(model: PreTrainedModel, modality: str) -> dict[str, str]:
    """Which method embeds, and which of its outputs is the embedding."""
    method = f"get_{modality}_features"
    if hasattr(model, method):
        return {"method": method, "method_output_name": "pooler_output"}
    vision = family_of(model.config).vision
    projected = vision is None or vision.projection
    output = "image_embeds" if projected else "pooler_output"
    return {"method": "forward", "method_output_name": output}
