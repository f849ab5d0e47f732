"""Feed-forward nets, several at once: what shares a shape shares every matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from htxas.learn.nets.network import Head, Network

__all__ = ["Outputs", "StackedMlp", "build"]

_NEAR_START = 0.1  # of the last weights, where the last bias already says something


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the last layer stands for.

    Attributes
    ----------
    count
        Outputs in all.
    separate
        True: each is a net of its own (scalar targets that share nothing). False: columns of one last layer.
    total
        Sum of an output row of :attr:`Head.DENSITY`.
    start
        Value of each output that the last bias begins with, for heads that are never negative.
    """

    count: int
    separate: bool
    total: float = 1.0
    start: tuple[float, ...] = ()


class StackedMlp(nn.Module):
    """``nets`` independent ReLU nets, evaluated as one batched product per layer.

    Narrow nets are bound by the cost of a call, not of a product: stacked, sixty cost little more than one.
    No net sees another's numbers: the gradient of a sum of losses is each net's own gradient.

    Parameters
    ----------
    inputs
        Number of input columns.
    widths
        Hidden layer widths.
    nets
        Number of nets.
    outputs
        Outputs of each.
    dropout
        Probability after each hidden layer; active in training mode only.
    generator
        Source of initial weights and, on the CPU, of dropout masks: nothing uses torch's global random state.
    head, total
        Of the last layer; see :class:`Outputs`.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        nets: int,
        outputs: int = 1,
        *,
        dropout: float,
        generator: torch.Generator,
        head: Head = Head.LINEAR,
        total: float = 1.0,
    ) -> None:
        super().__init__()
        self.dropout, self.head, self.total = dropout, head, total
        self.generator = generator
        sizes = [inputs, *widths, outputs]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            # He initialisation: keeps the variance of ReLU layers
            weight = torch.randn((nets, fan_in, fan_out), generator=generator) * math.sqrt(2.0 / fan_in)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros((nets, 1, fan_out))))

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (nets, n, outputs) of inputs (n, d), or (nets, n, d) with rows of each net's own."""
        nets = self.weights[0].shape[0]
        h = x.expand(nets, *x.shape) if x.dim() == 2 else x
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if layer < last:
                h = torch.relu(h)
                if self.training and self.dropout > 0:
                    keep = torch.rand(h.shape, generator=self.generator, device=h.device)
                    h = h * keep.ge_(self.dropout).mul_(1.0 / (1.0 - self.dropout))
        if self.head is Head.LINEAR:
            return h
        h = nn.functional.softplus(h)
        return h if self.head is Head.POSITIVE else h * (self.total / h.sum(dim=-1, keepdim=True))


def build(inputs: int, network: Network, outputs: Outputs, generator: torch.Generator) -> StackedMlp:
    """Return the untrained stack of a network: members, times the outputs where these are separate."""
    nets = network.members * (outputs.count if outputs.separate else 1)
    model = StackedMlp(
        inputs,
        network.widths,
        nets,
        1 if outputs.separate else outputs.count,
        dropout=network.dropout,
        generator=generator,
        head=network.head,
        total=outputs.total,
    )
    if outputs.start:
        start = torch.tensor(outputs.start).clamp_min(1e-3)
        with torch.no_grad():
            model.weights[-1].mul_(_NEAR_START)
            model.biases[-1].copy_(torch.log(torch.expm1(start)).expand_as(model.biases[-1]))
    return model
