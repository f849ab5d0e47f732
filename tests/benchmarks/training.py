"""Speed of the training stage: ratios against plain torch in the same run, and against the core itself.

    python tests/benchmarks/training.py [--rows 20000] [--epochs 20] [--workers 2]

1. Twelve property nets on synthetic molecules: one after the other in plain torch (``nn.Sequential``, resident
   tensors); the same twelve as independent tasks on Dask; and stacked, all twelve in one batched product. Narrow and
   wide nets.
2. What Dask costs: the same tasks in this process, one after the other, and on one worker.
3. One 240-512-512-12 net against the core's own matrix products.

Synthetic numbers: only the time matters. Everything computes on one thread per process; baselines are not fitted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from htxas.learn.nets.device import deterministic
from htxas.learn.nets.fit import fit_network
from htxas.learn.nets.models import Outputs
from htxas.learn.nets.network import Network, Share
from htxas.learn.runs.parallel import open_client

POINTS, TARGETS = 240, 12
NARROW, WIDE = (64, 64), (512, 512)
_PEAK_SIZE, _PEAK_REPEATS = 2048, 6


def network(widths: tuple[int, ...], epochs: int, share: Share = Share.NONE) -> Network:
    """Return a net that trains for exactly so many epochs."""
    batch = 32 if widths == NARROW else 256
    return Network(widths, members=1, epochs=epochs, patience=epochs, batch=batch, dropout=0.3, share=share)


def make(folder: Path, rows: int) -> None:
    """Write memory-mapped inputs and outputs, a tenth of them for validation."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, POINTS)).astype(np.float32)
    y = np.tanh(x[:, :40] @ rng.normal(size=(40, TARGETS)) / 6) + 0.1 * rng.normal(size=(rows, TARGETS))
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)


def ours(folder: str, columns: list[int], net: Network) -> float:
    """Train on some columns as a run does; return the last validation loss."""
    x, y = (np.load(Path(folder) / f"{n}.npy", mmap_mode="r") for n in "xy")
    cut = len(x) * 9 // 10
    outputs = Outputs(len(columns), separate=net.share is Share.NONE)
    with deterministic():
        fitted = fit_network(
            np.asarray(x[:cut], dtype=np.float64),
            np.asarray(y[:cut, columns]),
            np.asarray(x[cut:], dtype=np.float64),
            np.asarray(y[cut:, columns]),
            net,
            outputs,
            seed=columns[0],
        )
    return fitted.validation_loss[-1]


def plain(folder: str, columns: list[int], net: Network) -> float:
    """Train the same net in plain torch."""
    torch.manual_seed(columns[0])
    x, y = (torch.from_numpy(np.load(Path(folder) / f"{n}.npy").astype(np.float32)) for n in "xy")
    y, cut = y[:, columns], len(x) * 9 // 10
    layers: list[nn.Module] = []
    for a, b in zip((POINTS, *net.widths), net.widths, strict=False):
        layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(net.dropout)]
    model = nn.Sequential(*layers, nn.Linear(net.widths[-1], len(columns)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=net.learning_rate, weight_decay=net.weight_decay)
    error = nn.MSELoss()
    loss = float("nan")
    for _ in range(net.epochs):
        model.train()
        order = torch.randperm(cut)
        for begin in range(0, cut, net.batch):
            rows = order[begin : begin + net.batch]
            optimizer.zero_grad()
            torch.autograd.backward(error(model(x[rows]), y[rows]))
            optimizer.step()
        model.eval()
        with torch.no_grad():
            loss = float(error(model(x[cut:]), y[cut:]))
    return loss


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes on the clock."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_flops() -> float:
    """Return the core's best rate in single-precision matrix products, operations per second."""
    a, b = torch.randn(2, _PEAK_SIZE, _PEAK_SIZE).unbind()
    best = min(seconds(lambda: a @ b) for _ in range(_PEAK_REPEATS))
    return 2 * _PEAK_SIZE**3 / best


def twelve(folder: str, widths: tuple[int, ...], epochs: int, workers: int) -> None:
    """Print the times of twelve nets, three ways, and what Dask costs."""
    net, columns = network(widths, epochs), [[i] for i in range(TARGETS)]
    base = seconds(lambda: [plain(folder, c, net) for c in columns])
    here = seconds(lambda: [ours(folder, c, net) for c in columns])
    together = seconds(lambda: ours(folder, list(range(TARGETS)), net))
    print(f"twelve nets {POINTS}-{'-'.join(map(str, widths))}-1, batch {net.batch}, {epochs} epochs")
    print(f"  {'plain torch, one after the other':<44}{base:8.1f} s")
    print(f"  {'our loop, one after the other':<44}{here:8.1f} s {base / here:8.2f} x")
    for count in sorted({1, workers}):
        with open_client(count, None, None, Path(folder), TARGETS) as client:
            client.gather([client.submit(_warm, folder, i, pure=False) for i in range(4 * count)])
            spent = seconds(lambda: client.gather(client.map(ours, [folder] * TARGETS, columns, net=net)))
        cost = f"   Dask costs {100 * (spent / here - 1):+.1f} %" if count == 1 else ""
        print(
            f"  {f'on Dask, {count} worker' + 's' * (count > 1):<44}{spent:8.1f} s {base / spent:8.2f} x{cost}"
        )
    print(f"  {'stacked in one run, one process':<44}{together:8.1f} s {base / together:8.2f} x")


def _warm(folder: str, number: int) -> float:
    """Import everything and train for a moment: what a process does once is not measured."""
    return ours(folder, [number % TARGETS], network((8,), 1))


def one_wide(folder: str, rows: int, epochs: int) -> None:
    """Print how near to the core's peak one wide net of twelve outputs comes."""
    peak = peak_flops()
    net = network(WIDE, epochs, Share.TRUNK)
    spent = seconds(lambda: ours(folder, list(range(TARGETS)), net))
    sizes = (POINTS, *WIDE, TARGETS)
    forward = 2 * sum(a * b for a, b in pairwise(sizes))
    backward = 2 * forward - 2 * sizes[0] * sizes[1]  # inputs need no gradient
    work = epochs * (rows * 0.9 * (forward + backward) + rows * 0.1 * forward)
    print(
        f"one net {'-'.join(map(str, sizes))}, batch {net.batch}, {epochs} epochs of {rows * 9 // 10:,} rows"
    )
    print(
        f"  {spent:.1f} s, {work / spent / 1e9:.1f} of {peak / 1e9:.1f} GFLOP/s: {100 * work / spent / peak:.0f} %"
    )


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments.rows)
        _warm(folder, 0)
        one_wide(folder, arguments.rows, arguments.epochs)
        twelve(folder, NARROW, arguments.epochs, arguments.workers)
        twelve(folder, WIDE, max(1, arguments.epochs // 5), arguments.workers)


if __name__ == "__main__":
    main()
