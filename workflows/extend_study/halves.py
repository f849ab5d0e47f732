"""Did the molecules that `htxas campaign extend` chose teach more than as many drawn at random? Both were computed.

    python workflows/extend_study/halves.py DATASET.h5 [MORE.h5 ...] --start S.smi --chosen C.smi --random R.smi

Lists name molecules of the datasets. Writes curves.json, table.md and curves.png into a folder (--out).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.progress import Progress

from htxas.learn.choose.halves import run_halves
from htxas.learn.choose.known import gather
from htxas.learn.choose.study import study_targets, write_report
from htxas.learn.data.recipe import Window
from htxas.learn.data.source import FileSource
from htxas.learn.nets.device import deterministic


def names(path: Path) -> list[str]:
    """Return the names in a SMILES list."""
    return [line.split()[1] for line in path.read_text().splitlines() if line.strip()]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", type=Path, nargs="+", metavar="DATASET.h5")
    parser.add_argument("--start", type=Path, required=True, help="what both lists were added to")
    parser.add_argument("--chosen", type=Path, required=True, help="in the order in which they were chosen")
    parser.add_argument("--random", type=Path, required=True)
    parser.add_argument("--test", type=int, default=90, help="molecules, of the random ones")
    parser.add_argument("--step", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--property", action="append", dest="properties")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("halves"))
    a = parser.parse_args()
    properties = tuple(a.properties or ("gap", "lumo"))
    known = gather([FileSource(path) for path in a.datasets], study_targets(properties), Window())
    with Progress(transient=True) as progress, deterministic():
        task = progress.add_task("learning curves", total=a.repeats)
        curves = run_halves(
            known,
            names(a.start),
            names(a.chosen),
            names(a.random),
            test=a.test,
            step=a.step,
            repeats=a.repeats,
            properties=properties,
            seed=a.seed,
            on_done=lambda: progress.advance(task),
        )
    print(write_report(curves, a.out))


if __name__ == "__main__":
    main()
