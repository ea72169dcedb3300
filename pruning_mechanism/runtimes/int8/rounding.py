"""Which products of a tower int8 harms most, by one backward pass, and which to leave in float32.

Rounding a product's weights and inputs changes what it gives by δ, and the normalised embedding by
J δ to first order, J the derivative of one by the other. With v drawn from N(0, 1),

    E_v (vᵀ J δ)² = ‖J δ‖²,

and vᵀJ is the gradient of vᵀ × embedding: a single backward pass gives it for all products at once.
Changes of different products hardly correlate, so their squares add up; half of that is 1 - cos.
Little of the work often does most of the harm, such as the patch embedding: leaving that in
float32 costs next to nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, normalize
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from pruning_mechanism.runtimes.in_torch import Embedder

SMOOTHING = 0.5
"""α of SmoothQuant (arXiv 2211.10438, equation 4): how much of an outlier goes into the weights."""
HARM = 1e-5
"""1 - cos, on average, that all products together may do; what does more harm stays in float32."""
MOST = 0.2
"""Share of the tower's multiply–accumulates that may stay in float32."""
SEEN = 64
"""Images that harm is measured on."""
TOGETHER = 8
"""Images of a backward pass, which keeps what every product gives."""
TINY = 1e-8


@dataclass(frozen=True)
class Product:
    """A product of a weight with what a layer gives.

    `name` is the module's in an `Embedder`, `macs` multiply–accumulates for one image, `harm` the
    mean 1 - cos that rounding it, and nothing else, makes of embeddings.
    """

    name: str
    macs: float
    harm: float


@dataclass
class _Seen:
    """A module as images pass through it: least and largest input by channel [c], and its work.

    `watched`: whether the ranges are there.
    """

    module: nn.Linear | nn.Conv2d
    low: Tensor = field(init=False)
    high: Tensor = field(init=False)
    watched: bool = False
    macs: int = 0
    harm: float = 0.0

    def watch(self, module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        """A forward hook that finds ranges."""
        inputs = self._channels(given[0].detach())
        low, high = inputs.amin(0), inputs.amax(0)
        if self.watched:
            low, high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.low, self.high, self.watched = low, high, True

    def round(self, module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
        """A forward hook that sums up harm once the gradient comes back."""
        if not made.requires_grad:
            made = made.detach().requires_grad_()
        with torch.no_grad():
            change = self._rounded(given[0].detach()) - made.detach()

        def add(gradient: Tensor) -> None:
            self.harm += (gradient * change).flatten(1).sum(1).square().sum().item() / 2

        made.register_hook(add)
        return made

    def _channels(self, inputs: Tensor) -> Tensor:
        """Inputs [..., c], or [n, c, height, width], as [rows, c]."""
        if isinstance(self.module, nn.Conv2d):
            inputs = inputs.movedim(1, -1)
        return inputs.flatten(0, -2)

    def _rounded(self, inputs: Tensor) -> Tensor:
        """What the module gives in int8: weights by output, inputs by one range for all."""
        weight, bias = self.module.weight, self.module.bias
        if isinstance(self.module, nn.Conv2d):  # the channels of a picture are alike
            read = _grid(inputs, self.low.min(), self.high.max())
            given: Tensor = self.module._conv_forward(read, _by_output(weight), bias)
            return given
        peaks = torch.maximum(self.low.abs(), self.high.abs()).clamp(min=TINY)
        sizes = weight.abs().amax(0).clamp(min=TINY)
        scales = peaks**SMOOTHING / sizes ** (1 - SMOOTHING)
        low, high = (self.low / scales).min(), (self.high / scales).max()
        return linear(_grid(inputs / scales, low, high), _by_output(weight * scales), bias)


class _Work(TorchFunctionMode):
    """Counts multiply–accumulates of modules without hooks, which would change what is computed.

    Of a last layer for the class token alone, they would see one for all tokens.
    """

    def __init__(self, seen: Iterable[_Seen]) -> None:
        super().__init__()
        self._by_weight = {id(each.module.weight): each for each in seen}

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Let a function run; count it if it is a module's product."""
        made = func(*args, **(kwargs or {}))
        if func in (linear, conv2d) and (each := self._by_weight.get(id(args[1]))):
            each.macs += made.numel() * each.module.weight[0].numel()
        return made


def _grid(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Values rounded to 256 steps from `low` to `high`, 0 being one of them."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    step = ((high - low) / 255).clamp(min=TINY)
    zero = (-low / step).round()
    return ((values / step + zero).round().clamp(0, 255) - zero) * step


def _by_output(weight: Tensor) -> Tensor:
    """A weight [out, ...] rounded to 255 steps for each output, 0 in the middle."""
    most = weight.flatten(1).abs().amax(1).clamp(min=TINY)
    step = (most / 127).view(-1, *[1] * (weight.dim() - 1))
    return (weight / step).round() * step


def rounding_harm(model: PreTrainedModel, pixels: Tensor, seed: int = 0) -> list[Product]:
    """The harm that int8 does to embeddings, by product, in the order of the tower.

    Products of attention, which have no weights, aren't among them.

    Args:
        model: on the CPU, in float32.
        pixels: calibration images [n, 3, height, width].
        seed: for drawing v.
    """
    embedder = Embedder(model).eval()
    trained = [weight for weight in embedder.parameters() if weight.requires_grad]
    embedder.requires_grad_(False)
    seen = {
        name: _Seen(module)
        for name, module in embedder.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    try:
        _ranges(embedder, seen.values(), pixels)
        _count(embedder, seen.values(), pixels)
        used = {name: each for name, each in seen.items() if each.macs}
        _harm(embedder, used.values(), pixels, torch.Generator().manual_seed(seed))
    finally:
        for weight in trained:
            weight.requires_grad_(True)
    n = len(pixels)
    return [Product(name, each.macs / n, each.harm / n) for name, each in used.items()]


@torch.no_grad()
def _ranges(embedder: Embedder, seen: Iterable[_Seen], pixels: Tensor) -> None:
    hooks = [each.module.register_forward_hook(each.watch) for each in seen]
    for batch in pixels.split(TOGETHER):
        embedder(batch)
    for hook in hooks:
        hook.remove()


@torch.enable_grad()  # in inference pruned MLPs may compute with a wider copy of a weight
def _count(embedder: Embedder, seen: Iterable[_Seen], pixels: Tensor) -> None:
    with _Work(seen):
        for batch in pixels.split(TOGETHER):
            embedder(batch)


@torch.enable_grad()
def _harm(
    embedder: Embedder, seen: Iterable[_Seen], pixels: Tensor, generator: torch.Generator
) -> None:
    hooks = [each.module.register_forward_hook(each.round) for each in seen]
    for batch in pixels.split(TOGETHER):
        embeddings = normalize(embedder(batch), dim=-1)
        drawn = torch.randn(embeddings.shape, generator=generator)
        torch.autograd.backward((embeddings * drawn).sum())
    for hook in hooks:
        hook.remove()


def left_in_float(products: Sequence[Product]) -> list[Product]:
    """The products to leave in float32: those of most harm for their work, until `HARM` or `MOST`.

    One that is too much work for what may still be left is passed over.
    """
    harm = sum(product.harm for product in products)
    room = MOST * sum(product.macs for product in products)
    left = []
    for product in sorted(products, key=lambda each: each.harm / each.macs, reverse=True):
        if harm <= HARM:
            break
        if product.macs <= room:
            room -= product.macs
            harm -= product.harm
            left.append(product)
    return left
