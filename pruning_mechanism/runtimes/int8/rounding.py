"""Which products of a tower int8 harms most, by one backward pass, and which to leave in float32.

Rounding a product's weights and inputs changes what it gives by δ, and the normalised embedding by
J δ to first order, J the derivative of one by the other. With v drawn from N(0, 1),

    E_v (vᵀ J δ)² = ‖J δ‖²,

and vᵀJ is the gradient of vᵀ × embedding: a single backward pass gives it for all products at once.
Changes of different products hardly correlate, so their squares add up; half of that is 1 - cos.
Little of the work often does most of the harm, such as the patch embedding: leaving that in
float32 costs next to nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, normalize
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from pruning_mechanism.runtimes.in_torch import Embedder
from pruning_mechanism.runtimes.int8.smoothing import scales_of

HARM = 1e-5
"""1 - cos, on average, that all products together may do; what does more harm stays in float32."""
MOST = 0.2
"""Share of the tower's multiply–accumulates that may stay in float32."""
SEEN = 64
"""Images that harm is measured on."""
TOGETHER = 2
"""Images of a backward pass, which keeps what every product gives, and how rounding changes it."""
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
    """A weight as images pass by it: least and largest input by channel [c], and its work.

    `watched`: whether the ranges are there.
    """

    low: Tensor = field(init=False)
    high: Tensor = field(init=False)
    watched: bool = False
    macs: int = 0
    harm: float = 0.0

    def watch(self, product: "_Call", made: Tensor) -> Tensor:
        """Widen the ranges by what goes into a product, and count multiply–accumulates."""
        inputs = product.channels()
        low, high = inputs.amin(0), inputs.amax(0)
        if self.watched:
            low, high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.low, self.high, self.watched = low, high, True
        self.macs += made.numel() * product.weight[0].numel()
        return made

    def round(self, product: "_Call", made: Tensor) -> Tensor:
        """Sum up harm once the gradient of what a product gives comes back."""
        if not made.requires_grad:
            made = made.detach().requires_grad_()
        with torch.no_grad():
            change = product.rounded(self.low, self.high) - made.detach()

        def add(gradient: Tensor) -> None:
            self.harm += (gradient * change).flatten(1).sum(1).square().sum().item() / 2

        made.register_hook(add)
        return made


@dataclass(frozen=True)
class _Call:
    """A product that is computed: `linear` or `conv2d`, what goes in, a weight, and the rest."""

    function: Callable[..., Tensor]
    inputs: Tensor
    weight: Tensor
    rest: Sequence[Any]
    named: Mapping[str, Any]

    def channels(self) -> Tensor:
        """What goes in, [..., c] or [n, c, height, width], as [rows, c]."""
        inputs = self.inputs.detach()
        return (inputs.movedim(1, -1) if self.function is conv2d else inputs).flatten(0, -2)

    def rounded(self, low: Tensor, high: Tensor) -> Tensor:
        """What comes out in int8: weights by output, inputs by one range for all."""
        inputs, weight = self.inputs.detach(), self.weight
        if self.function is conv2d:  # the channels of a picture are alike
            read = _grid(inputs, low.min(), high.max())
            return conv2d(read, _by_output(weight), *self.rest, **self.named)
        peaks, sizes = torch.maximum(low.abs(), high.abs()), weight.detach().abs().amax(0)
        scales = torch.from_numpy(scales_of(peaks.numpy(), sizes.numpy()))
        read = _grid(inputs / scales, (low / scales).min(), (high / scales).max())
        return linear(read, _by_output(weight * scales), *self.rest, **self.named)


class _Products(TorchFunctionMode):
    """Lets every product with a module's weight be seen, whichever module computes it.

    Hooks of modules would see less and change what is computed: towers that keep a few patches
    multiply with the patch embedding's weight themselves, and a last layer for the class token
    alone isn't computed so where hooks are.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Linear | nn.Conv2d],
        see: Callable[[str, _Call, Tensor], Tensor],
    ) -> None:
        super().__init__()
        self._names = {_place(module.weight): name for name, module in modules.items()}
        self._see = see

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Let a function run; show it if it is a product."""
        made = func(*args, **(kwargs or {}))
        if func not in (linear, conv2d) or len(args) < 2:
            return made
        name = self._names.get(_place(args[1]))
        if name is None:
            return made
        return self._see(name, _Call(func, args[0], args[1], args[2:], kwargs or {}), made)


def _place(weight: Tensor) -> tuple[int, int]:
    """Where a weight lies in memory: the same for one that is only reshaped."""
    return weight.data_ptr(), weight.numel()


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
    modules = {
        name: module
        for name, module in embedder.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    seen: dict[str, _Seen] = defaultdict(_Seen)
    try:
        # with gradients: in plain inference pruned MLPs may compute with a wider copy of a weight
        with torch.enable_grad():
            with _Products(modules, lambda name, call, made: seen[name].watch(call, made)):
                for batch in pixels.split(TOGETHER):
                    embedder(batch)
            with _Products(modules, lambda name, call, made: seen[name].round(call, made)):
                _backward(embedder, pixels, seed)
    finally:
        for weight in trained:
            weight.requires_grad_(True)
    n = len(pixels)
    return [
        Product(name, seen[name].macs / n, seen[name].harm / n) for name in modules if name in seen
    ]


def _backward(embedder: Embedder, pixels: Tensor, seed: int) -> None:
    """Go back through the tower from vᵀ × embedding, for every image's own v."""
    generator = torch.Generator().manual_seed(seed)
    for batch in pixels.split(TOGETHER):
        embeddings = normalize(embedder(batch), dim=-1)
        drawn = torch.randn(embeddings.shape, generator=generator)
        torch.autograd.backward((embeddings * drawn).sum())


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
