"""A training file from end to end: source -> dataset -> runs -> report folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from htxas.errors import DatasetError
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.recipe import ModelKind
from htxas.learn.runs.parallel import Report, run_all
from htxas.learn.runs.plan import TrainingPlan
from htxas.learn.runs.plots import curve_plot, parity_plot
from htxas.learn.runs.queue_cluster import QueueWorkers
from htxas.learn.runs.run import TEST, RunSpec
from htxas.learn.runs.summary import write_summary

__all__ = ["MODELS", "Trained", "plan_runs", "train_plan"]

MODELS = "models"


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a training left behind.

    Attributes
    ----------
    dataset
        The frozen dataset.
    cards
        Model cards by model name.
    summary
        Content of ``metrics.json``.
    out_dir
        Folder with ``metrics.json``, ``table.md``, ``models/`` and pictures: ``parity.png`` of numbers, of each model
        of a curve one of its name.
    """

    dataset: Dataset
    cards: dict[str, dict[str, Any]]
    summary: dict[str, Any]
    out_dir: Path


def plan_runs(plan: TrainingPlan, dataset: Dataset) -> list[RunSpec]:
    """Return one run per target and model kind, but none that would read its target from its own inputs."""
    if ModelKind.B in plan.models and not dataset.card["ratios"]:
        raise DatasetError(
            "the dataset has no composition ratios for Model-B",
            where=str(dataset.path),
            hint="freeze it with qm9: {molecules: FILE}, or models: [A]",
        )
    specs = [
        RunSpec(dataset.key, (target,), kind, plan.network, plan.seed)
        for target in plan.dataset.targets
        for kind in plan.models
        if not (kind is ModelKind.B and target.startswith("ratio_"))
    ]
    if not specs:
        raise DatasetError(
            "Model-B is given the composition ratios: it cannot be asked for them", hint="add model A"
        )
    return specs


def train_plan(
    plan: TrainingPlan,
    dataset: Dataset,
    out_dir: Path,
    *,
    workers: int | None,
    scheduler: str | None = None,
    queue: QueueWorkers | None = None,
    on_done: Report | None = None,
) -> Trained:
    """Train all runs of a plan on its frozen dataset and write the report folder.

    Raises
    ------
    DatasetError
        If a run fails; finished ones are kept.
    """
    specs = plan_runs(plan, dataset)
    out_dir.mkdir(parents=True, exist_ok=True)
    found = run_all(
        dataset.path,
        specs,
        out_dir / MODELS,
        workers=workers,
        scheduler=scheduler,
        queue=queue,
        on_done=on_done,
    )
    cards = {spec.name: found[spec.key] for spec in specs}
    summary = write_summary(out_dir, cards, dataset)
    parity_plot(cards, out_dir / "parity.png")
    for spec in specs:
        test = out_dir / MODELS / spec.folder / TEST
        if test.is_file():
            curve_plot(cards[spec.name], load_file(test), out_dir / f"{spec.name}.png")
    return Trained(dataset, cards, summary, out_dir)
