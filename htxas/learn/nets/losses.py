"""What training makes small, per row: squared errors, or how far one curve's shape is from another's."""

from __future__ import annotations

import torch
from torch import Tensor

from htxas.learn.nets.network import Loss, Network

__all__ = ["Criterion", "information_divergence", "squared_error", "wasserstein"]

_SID_FLOOR = 1e-6


def squared_error(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the mean over outputs of the squared difference: (..., m) to (...)."""
    return ((predicted - true) ** 2).mean(dim=-1)


def wasserstein(difference: Tensor, step: float) -> Tensor:
    """Return the 1-Wasserstein distance of two curves from their difference (..., m) on a uniform grid.

    ``W = step * sum_i |F_i|``, ``F_i = step * sum_(j<=i) difference_j``: the area between the cumulative curves, which
    for two densities is the earth mover's distance (Vallender, Theory Probab. Appl. 18, 784 (1974)); in the grid's unit
    (eV) for curves of area 1. Where the areas differ, the difference is carried to the upper end of the grid.
    """
    m = difference.shape[-1]
    # A product, not a cumsum: the latter has no deterministic form on a GPU.
    upper = torch.ones((m, m), dtype=difference.dtype, device=difference.device).triu()
    return (difference @ upper).abs().sum(dim=-1) * step**2


def information_divergence(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the spectral information divergence of two non-negative curves, (..., m) to (...).

    ``SID = sum p ln(p/q) + sum q ln(q/p)`` of the curves scaled to sum 1 (Chang, IEEE Trans. Inf. Theory 46, 1927
    (2000)), each floored at 1e-6 of its sum so that an empty point is not infinite.
    """
    p, q = (
        (c := a / a.sum(dim=-1, keepdim=True)).clamp_min(_SID_FLOOR)
        / c.clamp_min(_SID_FLOOR).sum(dim=-1, keepdim=True)
        for a in (predicted, true)
    )
    return ((p - q) * (p / q).log()).sum(dim=-1)


class Criterion:
    """The loss a network asks for.

    Parameters
    ----------
    network
        Names the loss.
    step, scale
        Of curves: grid step (eV) and what standardised values are multiplied by to give the curve.
    """

    def __init__(self, network: Network, *, step: float = 1.0, scale: float = 1.0) -> None:
        self._loss = network.loss
        self._mse_weight = network.mse_weight
        self._step, self._scale = step, scale

    def __call__(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Return the loss per row of standardised outputs (..., m)."""
        if self._loss is Loss.MSE:
            return squared_error(predicted, true)
        shape = (
            wasserstein((predicted - true) * self._scale, self._step)
            if self._loss is Loss.WASSERSTEIN
            else information_divergence(predicted, true)
        )
        return shape + self._mse_weight * squared_error(predicted, true) if self._mse_weight else shape
