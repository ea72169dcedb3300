"""Token reduction that depends on the query: which patches go on is decided by the text.

PuMer (arXiv 2305.17530) keeps the patches that the text attends to. A bi-encoder has no attention
between text and image, so a patch's part in the answer is a dot product: of the text's embedding
and a vector that each patch is given. What vectors there are is said here, and what becomes of an
image under the order that they give; `evaluation.text_conditioned` measures it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, normalize
from tqdm import tqdm
from transformers import PreTrainedModel

from compress.rank import LEAST_EFFECT
from pruning_mechanism import Reduction, Shape, Tower, reduce
from pruning_mechanism.modeling.tokens import keep_ranked
from pruning_mechanism.ridge import deviations, ridge


@dataclass(frozen=True)
class CutTower:
    """A vision tower cut between one layer's attention and its MLP, where patches are ranked.

    `index` is the layer's, from 0. Below the cut nothing depends on a query.
    """

    tower: Tower
    index: int

    @classmethod
    def of(cls, model: PreTrainedModel, after: int) -> "CutTower":
        """Cut a model's vision tower after the attention of layer `after`, from 1.

        Raises:
            TowerError: the tower has no class token.
        """
        layers = len(Tower.of(model).layers)
        return cls(Tower.of(reduce(model, Reduction(ranked_per_layer=(0,) * layers))), after - 1)

    @torch.inference_mode()
    def states(self, pixels: Tensor) -> Tensor:
        """The tokens at the cut, [b, 1 + p, d], of images [b, 3, height, width]."""
        root, hidden = self._root, self.tower.embed(pixels)
        for index in range(self.index):
            hidden = root.through(index, hidden, None)[0]
        cut: Tensor = root.attend(self.index, hidden, None)[0]
        return cut

    @torch.inference_mode()
    def embedded(self, hidden: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Normalised embeddings [b, e] of tokens at the cut [b, n, d]; `sizes` None: all 1."""
        root = self._root
        hidden = root.feed(self.index, hidden)
        for index in range(self.index + 1, len(self.tower.layers)):
            hidden, sizes = root.through(index, hidden, sizes)
        return normalize(self.tower.final(root.pool(hidden, sizes)).float(), dim=-1)

    def reduced(self, hidden: Tensor, ranks: Tensor, keep: int) -> Tensor:
        """Embeddings [b, e] if the `keep` patches of highest rank [b, p] go on, the others as one.

        As `compress.rank` reduces in this layer; two patches at least are made one.
        """
        if keep >= ranks.shape[1] - 1:
            return self.embedded(hidden)
        left, sizes = keep_ranked(hidden, torch.ones_like(hidden[..., 0]), ranks, keep)
        return self.embedded(left.to(hidden.dtype), sizes)

    @torch.inference_mode()
    def contributions(self, hidden: Tensor) -> Tensor:
        """What each patch adds to the embedding, [b, p, e]: with it minus without it.

        The dot product with a normalised text embedding is what the patch adds to the similarity;
        half the square of its length is 1 - cos, the effect of Patch Ranking (arXiv 2409.14607).
        """
        whole = self.embedded(hidden)
        without = [
            self.embedded(torch.cat([hidden[:, :gone], hidden[:, gone + 1 :]], dim=1))
            for gone in range(1, hidden.shape[1])
        ]
        return whole[:, None] - torch.stack(without, dim=1)

    @torch.inference_mode()
    def read_early(self, hidden: Tensor) -> Tensor:
        """Each patch's token, taken for the class token after the last layer: [b, p, e], unit."""
        return normalize(self.tower.final(self._root.post_layernorm(hidden[:, 1:])).float(), dim=-1)

    @property
    def token_macs(self) -> int:
        """MACs of taking one token into the embedding space."""
        size: int = self.tower.config.hidden_size
        return size * self.tower.dimension

    @property
    def macs_below(self) -> int:
        """MACs of one image up to the cut, patch embedding included."""
        shape = Shape.of(self.tower.model.config)
        final = self.token_macs
        attention = [
            heads * shape.sized_head_macs(query_key, value, index)
            for index, (heads, query_key, value) in enumerate(
                zip(shape.heads, shape.query_key_sizes, shape.value_sizes, strict=True)
            )
        ]
        mlps = [neurons * shape.neuron_macs(index) for index, neurons in enumerate(shape.neurons)]
        layers = sum(attention[: self.index + 1]) + sum(mlps[: self.index])
        return round(shape.surrounding_macs - final + layers)

    @property
    def _root(self) -> Any:
        return self.tower.root


@dataclass(frozen=True)
class Predictor:
    """A patch's contribution to the embedding, linear in its layer-normalised token at the cut."""

    weight: Tensor
    intercept: Tensor

    @classmethod
    def solve(cls, cut: CutTower, states: Iterable[Tensor]) -> "Predictor":
        """By ridge regression on calibration images' states, batches [b, 1 + p, d].

        λ is chosen by the error on images left out with all their patches.
        """
        pairs = [(_tokens(hidden), cut.contributions(hidden)) for hidden in states]
        x = torch.cat([tokens for tokens, _ in pairs])
        y = torch.cat([effects for _, effects in pairs])
        patches = x.shape[1]
        x, y = x.flatten(0, 1).cpu(), y.flatten(0, 1).cpu()
        deviation = deviations(x)
        solved = ridge((x - x.mean(0)) / deviation, y, together=patches)
        weight = solved.weight / deviation.double()[:, None]
        intercept = solved.intercept - x.mean(0).double() @ weight
        return cls(weight.float(), intercept.float())

    def __call__(self, hidden: Tensor) -> Tensor:
        """Predicted contributions [b, p, e] of states [b, 1 + p, d]."""
        return _tokens(hidden) @ self.weight.to(hidden.device) + self.intercept.to(hidden.device)


def _tokens(hidden: Tensor) -> Tensor:
    """Layer-normalised patches [b, p, d]."""
    return layer_norm(hidden[:, 1:].float(), hidden.shape[-1:])


@dataclass(frozen=True)
class Order:
    """An order of an image's patches.

    `ranks` gives it, [c, p], for the images at positions [c] and the embedding [e] of a query's
    text, which an order that isn't `by_text` leaves unread. `known`: it is made of the patches'
    true contributions, which take an encode for each patch: no way to save MACs, but as much as
    can be known of single patches.
    """

    name: str
    by_text: bool
    known: bool
    ranks: Callable[[Tensor, Tensor], Tensor]


def orders(cut: CutTower, states: Tensor, predictor: Predictor, batch: int) -> tuple[Order, ...]:
    """The orders that are compared, of images with these states [N, 1 + p, d].

    By the effect on the embedding, predicted and known, and by that on the similarity to the text.
    PuMer's own, the similarity of a patch to the text, reads a patch's embedding off its token as
    if the tower ended at the cut.
    """
    parts = states.split(batch)
    early = torch.cat([cut.read_early(part) for part in parts])
    predicted = torch.cat([predictor(part) for part in parts])
    bar = tqdm(parts, desc=f"contributions: layer {cut.index + 1}", unit="batch", leave=None)
    known = torch.cat([cut.contributions(part) for part in bar])
    return (
        Order("effect, predicted", False, False, lambda at, _: effect_ranks(predicted[at])),
        Order("effect, known", False, True, lambda at, _: effect_ranks(known[at])),
        Order("similarity to text", True, False, lambda at, text: early[at] @ text),
        Order(
            "effect on text, predicted",
            True,
            False,
            lambda at, text: text_effect_ranks(predicted[at], text),
        ),
        Order(
            "effect on text, known", True, True, lambda at, text: text_effect_ranks(known[at], text)
        ),
    )


def effect_ranks(contributions: Tensor) -> Tensor:
    """Ranks [c, p] by what contributions [c, p, e] do to an embedding, whatever the text."""
    return _logarithms(contributions.square().sum(-1))


def text_effect_ranks(contributions: Tensor, text: Tensor) -> Tensor:
    """Ranks [c, p] by what contributions [c, p, e] do to the similarity to a text [e].

    Of either sign: a patch that makes an image less similar matters as much to the full tower's
    order of images as one that makes it more similar.
    """
    return _logarithms((contributions @ text).abs())


def _logarithms(effects: Tensor) -> Tensor:
    """Ranks as `compress.rank` has them, by which patches that are made one are weighted."""
    return effects.clamp(min=LEAST_EFFECT).log()
