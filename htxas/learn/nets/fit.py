"""The training loop: one resident tensor, one thread, one generator; the same numbers on every run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from htxas.errors import DatasetError
from htxas.learn.nets.device import device
from htxas.learn.nets.losses import Criterion
from htxas.learn.nets.models import Outputs, StackedMlp, build
from htxas.learn.nets.network import Network

__all__ = ["Fitted", "OnEpoch", "fit_network", "predict_network"]

FloatArray = npt.NDArray[np.float64]
OnEpoch = Callable[[int, float], None]
_CHUNK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A trained stack of nets.

    Attributes
    ----------
    state
        Weights by name, on the CPU, each net at its own best epoch.
    best_epoch
        Epoch (from 1) with the lowest validation loss, per net: all members of the first separate output, and so on.
    train_loss, validation_loss
        Mean over nets, per epoch; of standardised outputs; for validation each net's on the rows it stops by.
    """

    state: dict[str, Tensor]
    best_epoch: tuple[int, ...]
    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]


def fit_network(
    x: FloatArray | Callable[[torch.Generator], Tensor],
    y: FloatArray,
    x_validation: FloatArray,
    y_validation: FloatArray,
    network: Network,
    outputs: Outputs,
    *,
    seed: int,
    stop_by: npt.NDArray[np.bool_] | None = None,
    criterion: Criterion | None = None,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Train on standardised rows with AdamW and early stopping per net.

    Parameters
    ----------
    x
        Training inputs, shape (n, d); or a function that draws them anew for an epoch.
    x_validation
        Validation inputs, shape (k, d).
    y, y_validation
        Standardised outputs, shapes (n, o) and (k, o).
    network
        Architecture and schedule.
    outputs
        What the last layer stands for.
    seed
        Decides initial weights, dropout, batches and drawn inputs.
    stop_by
        Validation rows that each member stops by, shape (members, k), at least one each; None: all.
    criterion
        Default: mean squared error.
    on_epoch
        Called with the epoch and its mean validation loss; it may raise to end the run.

    Raises
    ------
    DatasetError
        If the loss stops being finite.
    """
    at, criterion = device(), criterion or Criterion(network)
    generator = torch.Generator().manual_seed(seed)
    vx = _tensor(x_validation)
    model = build(vx.shape[1], network, outputs, generator).to(at)
    if at.type != "cpu":
        generator = torch.Generator(at).manual_seed(seed)
        model.generator = generator
    fixed = None if callable(x) else _tensor(x)
    ty, vy = (_by_net(a, outputs, network.members) for a in (y, y_validation))
    nets, n = model.weights[0].shape[0], ty.shape[1]
    judges = _judges(stop_by, vy.shape[1], outputs, network.members)
    own = torch.arange(nets, device=at)[:, None] if len(ty) == nets else 0
    optimizer = torch.optim.AdamW(
        [
            {"params": list(model.weights), "weight_decay": network.weight_decay},
            {"params": list(model.biases), "weight_decay": 0.0},
        ],
        lr=network.learning_rate,
        fused=True,
    )
    best = torch.full((nets,), float("inf"), device=at)
    best_epoch = torch.zeros(nets, dtype=torch.long, device=at)
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    train_loss, validation_loss = [], []
    for epoch in range(1, network.epochs + 1):
        model.train()
        tx = fixed if fixed is not None else x(generator)  # type: ignore[operator]  # callable where not fixed
        # Each net walks through the rows in its own order.
        order = torch.argsort(torch.rand((nets, n), generator=generator, device=at), dim=1)
        total = torch.zeros(nets, device=at)
        for begin in range(0, n, network.batch):
            rows = order[:, begin : begin + network.batch]
            error = criterion(model(tx[rows]), ty[own, rows]).mean(dim=1)
            optimizer.zero_grad()
            torch.autograd.backward(error.sum())
            optimizer.step()
            total += error.detach() * rows.shape[1]
        current = (_losses(model, vx, vy, criterion) * judges).sum(dim=1)
        if not bool(torch.isfinite(current).all()):
            raise DatasetError(f"the loss is not finite in epoch {epoch}", hint="lower network.learning_rate")
        train_loss.append(float(total.mean()) / n)
        validation_loss.append(float(current.mean()))
        if on_epoch is not None:
            on_epoch(epoch, validation_loss[-1])
        # A net that has run out of patience keeps its state even if it would improve again while others go on.
        better = (current < best) & (epoch - best_epoch <= network.patience)
        best = torch.where(better, current, best)
        best_epoch[better] = epoch
        for name, value in model.state_dict().items():
            state[name][better] = value[better]
        if bool((epoch - best_epoch >= network.patience).all()):
            break
    return Fitted(
        {k: v.cpu() for k, v in state.items()},
        tuple(int(e) for e in best_epoch),
        tuple(train_loss),
        tuple(validation_loss),
    )


def predict_network(
    state: dict[str, Tensor], x: FloatArray, network: Network, outputs: Outputs
) -> FloatArray:
    """Return every member's standardised outputs of standardised rows (n, d), shape (members, n, o)."""
    model = build(x.shape[1], network, outputs, torch.Generator().manual_seed(0))
    model.load_state_dict(state)
    model = model.to(device())
    model.eval()
    with torch.no_grad():
        parts = [model(_tensor(x[b : b + _CHUNK])).cpu() for b in range(0, len(x), _CHUNK)]
    out = torch.cat(parts, dim=1).numpy().astype(np.float64)
    if not outputs.separate:
        return np.asarray(out)
    return np.moveaxis(out.reshape(outputs.count, network.members, len(x)), 0, 2)


def _tensor(a: npt.ArrayLike) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)).to(device())


def _by_net(y: FloatArray, outputs: Outputs, members: int) -> Tensor:
    # (nets, n, 1) where each output has nets of its own, else (1, n, o), the same for all.
    if not outputs.separate:
        return _tensor(y[None])
    return _tensor(np.repeat(y.T, members, axis=0)[..., None])


def _judges(stop_by: npt.NDArray[np.bool_] | None, k: int, outputs: Outputs, members: int) -> Tensor:
    # (nets, k): each row's weight in the mean by which a net stops
    rows = np.ones((members, k)) if stop_by is None else stop_by.astype(np.float64)
    return _tensor(
        np.tile(rows / rows.sum(axis=1, keepdims=True), (outputs.count if outputs.separate else 1, 1))
    )


def _losses(model: StackedMlp, x: Tensor, y: Tensor, criterion: Criterion) -> Tensor:
    # (nets, n)
    model.eval()
    with torch.no_grad():
        parts = [criterion(model(x[b : b + _CHUNK]), y[:, b : b + _CHUNK]) for b in range(0, len(x), _CHUNK)]
    return torch.cat(parts, dim=1)
