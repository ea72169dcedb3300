"""A CLIP whose vision layers may each keep their own number of heads and neurons.

Every smaller tower is an instance of the classes here, whatever made it smaller. The file needs
torch and transformers only: `save_pretrained` copies it into the checkpoint, which therefore loads
with `trust_remote_code=True` on a machine that has never heard of this project.

Modifications to transformers' CLIP:
- `PrunedCLIPVisionConfig` adds `heads_per_layer` and `neurons_per_layer`; `num_attention_heads`
  stays what it was before pruning, so that the head dimension does too.
- a vision layer's projections are as wide as its own heads and neurons ask for;
- a sublayer with no unit left adds the bias of its output projection, and nothing else of it runs;
- on the CPU, large batches compute an MLP of odd width a few zero neurons wider: a matrix product
  whose result is 1237 columns wide takes a third longer than one of 1248.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPEncoderLayer

EVEN_WIDTH = 16  # float32 numbers in a cache line
LARGE_BATCH = 2048  # tokens from which on a copy of fc1's weight costs less than it saves


class PrunedCLIPVisionConfig(CLIPVisionConfig):
    """A vision tower's shape, with the units that each layer keeps (None: all of them)."""

    model_type = "pruned_clip_vision_model"
    heads_per_layer: list[int] | None = None
    neurons_per_layer: list[int] | None = None


class PrunedCLIPConfig(CLIPConfig):
    """A CLIP with a pruned vision tower and an ordinary text tower."""

    model_type = "pruned_clip"
    sub_configs_defaults = {  # noqa: RUF012 - transformers reads it under this name
        "vision_config": PrunedCLIPVisionConfig,
        "text_config": CLIPTextConfig,
    }


class PrunedMLP(CLIPMLP):
    """An MLP of any width."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """What the MLP adds to the residual stream, [batch, tokens, hidden] for as much."""
        width = self.fc1.out_features
        extra = -width % EVEN_WIDTH
        if not extra or not self._worth_padding(hidden_states):
            return super().forward(hidden_states)
        weight, bias = pad(self.fc1.weight, (0, 0, 0, extra)), pad(self.fc1.bias, (0, extra))
        return self.fc2(self.activation_fn(linear(hidden_states, weight, bias))[..., :width])

    def _worth_padding(self, hidden_states: Tensor) -> bool:
        """Only plain inference in large batches; whoever adapts or traces fc1 finds it in use."""
        return (
            hidden_states.device.type == "cpu"
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and type(self.fc1) is nn.Linear
            and hidden_states.shape[:-1].numel() >= LARGE_BATCH
        )


class PrunedEncoderLayer(CLIPEncoderLayer):
    """One vision layer with `heads` attention heads and `neurons` neurons, either may be 0."""

    def __init__(self, config: PrunedCLIPVisionConfig, heads: int, neurons: int):
        super().__init__(config)
        self.mlp = PrunedMLP(config)
        attention, mlp = self.self_attn, self.mlp
        width = heads * attention.head_dim
        with warnings.catch_warnings():  # a layer of width 0 has nothing to initialise
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
            for name in ("q_proj", "k_proj", "v_proj"):
                setattr(attention, name, nn.Linear(self.embed_dim, width))
            attention.out_proj = nn.Linear(width, self.embed_dim)
            mlp.fc1 = nn.Linear(self.embed_dim, neurons)
            mlp.fc2 = nn.Linear(neurons, self.embed_dim)
        attention.num_heads = heads

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs
    ) -> Tensor:
        """Hidden states [batch, tokens, hidden] one layer further."""
        attention, mlp = self.self_attn, self.mlp
        if attention.num_heads:
            normed = self.layer_norm1(hidden_states)
            hidden_states = hidden_states + attention(normed, attention_mask, **kwargs)[0]
        else:
            hidden_states = hidden_states + attention.out_proj.bias
        if mlp.fc2.in_features:
            return hidden_states + mlp(self.layer_norm2(hidden_states))
        return hidden_states + mlp.fc2.bias


def _prune_layers(model: nn.Module, config: PrunedCLIPVisionConfig) -> None:
    """Put layers of the configured widths in the place of the dense ones."""
    layers = model.vision_model.encoder.layers
    heads = config.heads_per_layer or [config.num_attention_heads] * len(layers)
    neurons = config.neurons_per_layer or [config.intermediate_size] * len(layers)
    if not len(heads) == len(neurons) == len(layers):
        raise ValueError(
            f"the tower has {len(layers)} layers, but heads_per_layer has {len(heads)} entries "
            f"and neurons_per_layer {len(neurons)}"
        )
    inner_config = model.vision_model.config  # carries the attention implementation in use
    for index, (kept_heads, kept_neurons) in enumerate(zip(heads, neurons, strict=True)):
        layers[index] = PrunedEncoderLayer(inner_config, kept_heads, kept_neurons)
    model.post_init()


class PrunedCLIPModel(CLIPModel):
    """`CLIPModel` with a pruned vision tower; the same methods and outputs."""

    config_class = PrunedCLIPConfig

    def __init__(self, config: PrunedCLIPConfig):
        super().__init__(config)
        _prune_layers(self, config.vision_config)


class PrunedCLIPVisionModelWithProjection(CLIPVisionModelWithProjection):
    """`CLIPVisionModelWithProjection`, pruned; the same methods and outputs."""

    config_class = PrunedCLIPVisionConfig

    def __init__(self, config: PrunedCLIPVisionConfig):
        super().__init__(config)
        _prune_layers(self, config)
