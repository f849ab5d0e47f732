"""Feed-forward nets, several at once: the members of an ensemble share every matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["StackedMlp"]


class StackedMlp(nn.Module):
    """``members`` independent ReLU nets with one output each, evaluated as one batched product per layer.

    Narrow nets are bound by the cost of a call, not of a product: stacked, five cost little more than one.
    No member sees another's numbers: the gradient of a sum of losses is each member's own gradient.

    Parameters
    ----------
    inputs
        Number of input columns.
    widths
        Hidden layer widths.
    members
        Number of nets.
    dropout
        Probability after each hidden layer; active in training mode only.
    generator
        Source of initial weights and of dropout masks: nothing uses torch's global random state.
    """

    def __init__(
        self, inputs: int, widths: Sequence[int], members: int, *, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self._generator = generator
        sizes = [inputs, *widths, 1]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            # He initialisation: keeps the variance of ReLU layers
            weight = torch.randn((members, fan_in, fan_out), generator=generator) * math.sqrt(2.0 / fan_in)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros((members, 1, fan_out))))

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (members, n) of inputs (n, d), or (members, n, d) with rows of each member's own."""
        members = self.weights[0].shape[0]
        h = x.expand(members, *x.shape) if x.dim() == 2 else x
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if layer < last:
                h = torch.relu(h)
                if self.training and self.dropout > 0:
                    keep = torch.rand(h.shape, generator=self._generator) >= self.dropout
                    h = h * keep / (1.0 - self.dropout)
        return h.squeeze(-1)
