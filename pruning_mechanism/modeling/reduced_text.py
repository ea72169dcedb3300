"""A text tower that works by token rules; part of every checkpoint.

Beside `modeling_pruned_clip`, for towers with a causal mask that read the embedding off the end of
a text. What a rule does stands in its own file.

Modifications to transformers' text towers, made only where a rule leaves fewer tokens of texts of
this length: tokens get fewer between a layer's attention and its MLP (`reduced_layers`). What comes
after the end of a text has size 0, which no other token attends to. So the tokens that are left
keep their order and stand before the padding, and an embedding doesn't depend on the batch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .pruned_layers import FamilyModule, mixed
from .reduced_layers import ReducedLayers, as_asked, selected
from .token_rule import known_sizes
from .token_rules import asked_rules
from .tokens import ends_of


def reduce_text_tower(model: FamilyModule) -> None:
    """Give the text tower of a model the rules that its configuration asks for, in place."""
    root: FamilyModule = getattr(model, "text_model", None)
    rules = () if root is None else asked_rules(root.config)
    if rules:
        root.__class__ = mixed(ReducedTextTower, root.__class__)
        root.rules = rules
        for rule in rules:
            rule.build(model)


class ReducedTextTower(ReducedLayers):
    """A text tower that works by `rules`; over a family's own."""

    config: Any  # the family's own
    embeddings: nn.Module
    final_layer_norm: nn.Module

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As the family's own; the last states have fewer tokens, and padding behind them."""
        states, attentions, as_output = as_asked(
            self.config,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=return_dict,
        )
        if input_ids is None or not self._leaves_fewer(input_ids.shape[-1]):
            asked = {"output_hidden_states": states, "output_attentions": attentions}
            dense: BaseModelOutputWithPooling = super().forward(  # type: ignore[misc]
                input_ids, attention_mask, position_ids, return_dict=True, **asked, **kwargs
            )
            return dense.to_tuple() if as_output is False else dense
        input_ids = input_ids.view(-1, input_ids.shape[-1])
        weights: list[Tensor] | None = [] if attentions else None
        hidden: Tensor = self.embeddings(input_ids=input_ids, position_ids=position_ids)
        sizes = self._sizes(input_ids, attention_mask)
        through = [hidden]
        for index in range(len(self.encoder.layers)):
            hidden, known = self.through(index, hidden, sizes, weights)
            sizes = known_sizes(known, hidden)
            through.append(hidden)
        hidden = self.final_layer_norm(hidden)
        _, end = ends_of(sizes)
        output = BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=hidden[torch.arange(len(end), device=end.device), end],
            hidden_states=selected(through, states) if states else None,  # type: ignore[arg-type]
            attentions=None if weights is None else tuple(weights),
        )
        return output.to_tuple() if as_output is False else output

    def _leaves_fewer(self, tokens: int) -> bool:
        """Whether any rule leaves fewer of so many tokens in any layer."""
        layers = range(len(self.encoder.layers))
        return any(rule.left(layer, tokens) < tokens for layer in layers for rule in self.rules)

    def _sizes(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """1 for each token of a text up to its end, 0 for the others, float32 [b, n]."""
        end = self.config.eos_token_id
        if self.config.highest_ends and end == 2:  # as configurations of early CLIPs have it
            ends = input_ids.int().argmax(1)
        else:
            ends = input_ids.eq(end).int().argmax(1)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        counts = places <= ends[:, None]
        return (counts if attention_mask is None else counts & attention_mask.bool()).float()

    def bias(self, hidden: Tensor, sizes: Tensor | None) -> Tensor | None:
        """Sizes, and that no token attends to later ones; [b, 1, n, n]."""
        places = torch.arange(hidden.shape[1], device=hidden.device)
        sizes = known_sizes(sizes, hidden)
        # padding attends to itself, lest it attend to nothing
        itself = (places == places[:, None]) & (sizes == 0)[:, None, None]
        bias = sizes.log()[:, None, None].masked_fill(itself, 0)
        return bias.masked_fill(places > places[:, None], -torch.inf).to(hidden.dtype)
