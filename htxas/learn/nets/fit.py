"""The training loop: one resident tensor, one thread, one generator; the same numbers on every run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

from htxas.errors import DatasetError
from htxas.learn.nets.models import StackedMlp
from htxas.learn.nets.network import Network

__all__ = ["Fitted", "fit_network", "predict_network", "single_thread"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A trained stack of nets.

    Attributes
    ----------
    state
        Weights by name, each member at its own best epoch.
    best_epoch
        Epoch (from 1) with the lowest validation error, per member.
    train_loss, validation_loss
        Mean over members of the mean squared error of the standardised target, per epoch.
    """

    state: dict[str, torch.Tensor]
    best_epoch: tuple[int, ...]
    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]


@contextmanager
def single_thread() -> Iterator[None]:
    """Run torch and BLAS on one thread: the order of every sum, and so every digit, is then fixed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def fit_network(
    x: FloatArray,
    y: FloatArray,
    x_validation: FloatArray,
    y_validation: FloatArray,
    network: Network,
    *,
    seed: int,
) -> Fitted:
    """Train on standardised rows with AdamW, mean squared error and early stopping per member.

    Parameters
    ----------
    x, x_validation
        Inputs, shape (n, d).
    y, y_validation
        Standardised target, shape (n,).
    network
        Architecture and schedule.
    seed
        Decides initial weights, dropout and batches.

    Raises
    ------
    DatasetError
        If the loss stops being finite.
    """
    generator = torch.Generator().manual_seed(seed)
    data = [
        torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32))
        for a in (x, y, x_validation, y_validation)
    ]
    tx, ty, vx, vy = data
    members, n = network.members, len(tx)
    model = StackedMlp(tx.shape[1], network.widths, members, dropout=network.dropout, generator=generator)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=network.learning_rate, weight_decay=network.weight_decay
    )
    best = torch.full((members,), float("inf"))
    best_epoch = torch.zeros(members, dtype=torch.long)
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    train_loss, validation_loss = [], []
    for epoch in range(1, network.epochs + 1):
        model.train()
        # Each member walks through the rows in its own order.
        order = torch.argsort(torch.rand((members, n), generator=generator), dim=1)
        total = torch.zeros(members)
        for begin in range(0, n, network.batch):
            rows = order[:, begin : begin + network.batch]
            error = ((model(tx[rows]) - ty[rows]) ** 2).mean(dim=1)
            optimizer.zero_grad()
            torch.autograd.backward(error.sum())
            optimizer.step()
            total += error.detach() * rows.shape[1]
        model.eval()
        with torch.no_grad():
            current = ((model(vx) - vy) ** 2).mean(dim=1)
        if not bool(torch.isfinite(current).all()):
            raise DatasetError(f"the loss is not finite in epoch {epoch}", hint="lower network.learning_rate")
        train_loss.append(float(total.mean()) / n)
        validation_loss.append(float(current.mean()))
        # A member that has run out of patience keeps its state even if it would improve again while others go on.
        better = (current < best) & (epoch - best_epoch <= network.patience)
        best = torch.where(better, current, best)
        best_epoch[better] = epoch
        for name, value in model.state_dict().items():
            state[name][better] = value[better]
        if bool((epoch - best_epoch >= network.patience).all()):
            break
    return Fitted(state, tuple(int(e) for e in best_epoch), tuple(train_loss), tuple(validation_loss))


def predict_network(state: dict[str, torch.Tensor], x: FloatArray, network: Network) -> FloatArray:
    """Return every member's prediction of standardised rows (n, d), shape (members, n)."""
    model = StackedMlp(
        x.shape[1], network.widths, network.members, dropout=0.0, generator=torch.Generator().manual_seed(0)
    )
    model.load_state_dict(state)
    model.eval()
    with torch.no_grad():
        out = model(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)))
    return np.asarray(out.numpy(), dtype=np.float64)
