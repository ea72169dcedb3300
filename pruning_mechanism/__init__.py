"""What it takes to make a tower physically smaller and keep it: mask, cost, surgery, models.

Importing this package makes `transformers.AutoModel` load the checkpoints that it saves.
"""

from pruning_mechanism.checkpoints.checkpoint import load, register, save
from pruning_mechanism.checkpoints.preparation import check_belongs, load_processor
from pruning_mechanism.checkpoints.record import Compression, read_record
from pruning_mechanism.cost import Macs, Shape, mac_share, macs, parameters
from pruning_mechanism.encoding import (
    image_embeddings,
    layered,
    text_embeddings,
    tokenise,
    tower_of,
)
from pruning_mechanism.families import Family, TowerError, TowerKind
from pruning_mechanism.mask import Mask
from pruning_mechanism.modeling.aligned_projection import AlignedProjection
from pruning_mechanism.modeling.token_rule import Change, TokenRule, Tokens
from pruning_mechanism.modeling.token_rules import register_token_rule
from pruning_mechanism.reduction import (
    Reduction,
    align,
    check_alignable,
    has_all_layers,
    is_smaller,
    mac_fraction,
    pooled_only,
    reduce,
    reduced_shape,
    vision_alone,
)
from pruning_mechanism.sublayer import Sublayer
from pruning_mechanism.surgery import is_pruned, masked, prune
from pruning_mechanism.tower import Tower, embed, project, sublayers

register()

__all__ = [
    "AlignedProjection",
    "Change",
    "Compression",
    "Family",
    "Macs",
    "Mask",
    "Reduction",
    "Shape",
    "Sublayer",
    "TokenRule",
    "Tokens",
    "Tower",
    "TowerError",
    "TowerKind",
    "align",
    "check_alignable",
    "check_belongs",
    "embed",
    "has_all_layers",
    "image_embeddings",
    "is_pruned",
    "is_smaller",
    "layered",
    "load",
    "load_processor",
    "mac_fraction",
    "mac_share",
    "macs",
    "masked",
    "parameters",
    "pooled_only",
    "project",
    "prune",
    "read_record",
    "reduce",
    "reduced_shape",
    "register_token_rule",
    "save",
    "sublayers",
    "text_embeddings",
    "tokenise",
    "tower_of",
    "vision_alone",
]
