"""Sites per core-hour of the PySCF engine beside plain PySCF, one process per site, in the same run.

    python tests/benchmarks/engine_speed.py [--molecules FILE] [--preset published] [--sites 12]

The peer is what a careful script does: for each site its own process imports PySCF, runs the ground state, the
transition potential and the ion with PySCF's own density-fitted Kohn-Sham classes, in the same basis, functional, grid
and convergence, hole followed by overlap. It leaves out the final states in the enlarged basis, which the engine does
compute; so the ratio is on the low side.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from htxas.assets import workflow
from htxas.domain.calculation import Calculation, Kind
from htxas.domain.result import SiteResult
from htxas.engines.base import Engine, Job, read_job
from htxas.engines.registry import get_engine
from htxas.structures.geometry import GeometryMaker
from htxas.structures.read import expand, read_molecules


def plain(directory: Path) -> None:
    """The peer: one site from nothing, with PySCF's own classes; prints the ionisation energy in eV."""
    import numpy as np
    from pyscf import dft, lib

    from htxas.domain.units import HARTREE_EV
    from htxas.engines.pyscf.molecule import build, core_orbitals

    lib.num_threads(1)
    job = read_job(directory)
    p = job.calculation.parameters["ground"]
    mol = build(job.structure, p)

    def prepare(cls: type) -> object:
        mf = cls(mol).density_fit(auxbasis=p["auxiliary_basis"]).sfx2c1e()
        mf.xc, mf.grids.level = p["functional"], p["grid_level"]
        mf.conv_tol, mf.conv_tol_grad = p["energy_tolerance_Ha"], p["gradient_tolerance_Ha"]
        return mf

    ground = prepare(dft.RKS)
    ground.kernel()
    n = mol.nelectron // 2
    overlap = ground.get_ovlp()
    atoms = job.structure.indices_of(p["core_element"])
    cores = core_orbitals(mol, overlap, ground.mo_coeff[:, :n], atoms)
    target = cores[:, atoms.index(job.calculation.atom)] @ overlap
    half = prepare(dft.RKS)

    def half_hole(mo_energy: object = None, mo_coeff: object = None) -> np.ndarray:
        occupations = np.zeros(mo_coeff.shape[1])
        hole = int(np.abs(target @ mo_coeff).argmax())
        occupations[[i for i in range(n + 1) if i != hole][: n - 1]] = 2
        occupations[hole] = 1.5
        return occupations

    half.get_occ = half_hole
    core = cores[:, atoms.index(job.calculation.atom)]
    half.kernel(ground.make_rdm1() - 0.5 * np.outer(core, core))
    ion = prepare(dft.UKS)

    def full_hole(mo_energy: object = None, mo_coeff: object = None) -> np.ndarray:
        occupations = np.zeros((2, mo_coeff[0].shape[1]))
        occupations[0, :n] = 1
        hole = int(np.abs(target @ mo_coeff[1]).argmax())
        occupations[1, [i for i in range(n) if i != hole][: n - 1]] = 1
        return occupations

    ion.get_occ = full_hole
    density = half.make_rdm1() / 2
    ion.kernel(np.array([density, density - 0.75 * np.outer(core, core)]))
    assert all(mf.converged for mf in (ground, half, ion))
    print((ion.e_tot - ground.e_tot) * HARTREE_EV)


def write_jobs(
    engine: Engine, molecules: Path, preset: str, limit: int, folder: Path
) -> list[tuple[str, Job, list[Job]]]:
    """Ground-state and site jobs of the molecules, at most ``limit`` sites."""
    p = engine.resolve(preset, {}, element="C", edge="K")
    out, count = [], 0
    maker = GeometryMaker(folder / "geometries")
    for source in read_molecules(molecules, geometry=maker):
        key = source.structure.key
        ground = Calculation(Kind.GROUND, key, engine.name, p.ground)
        sites = []
        for site in expand(source, "C"):
            if count < limit:
                calculation = Calculation(Kind.SITE, key, engine.name, p.site, "C", "K", site.atom)
                sites.append(Job(calculation, source.structure, folder / ground.key))
                count += 1
        if sites:
            out.append((source.name, Job(ground, source.structure), sites))
        for job in [Job(ground, source.structure), *sites]:
            directory = folder / job.calculation.key
            directory.mkdir(exist_ok=True)
            engine.write(job, directory)
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--molecules", type=Path, default=None)
    parser.add_argument("--preset", default="published")
    parser.add_argument("--sites", type=int, default=12)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        plain(arguments.plain)
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    engine = get_engine("pyscf")
    with tempfile.TemporaryDirectory(prefix="htxas-bench-") as name:
        folder = Path(name)
        source = arguments.molecules or workflow("quickstart/molecules.smi")
        molecules = write_jobs(engine, source, arguments.preset, arguments.sites, folder)
        server = subprocess.Popen(
            engine.server_command() or [],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        rows = []
        for molecule, ground, sites in track(molecules, console=Console(stderr=True)):
            start = time.perf_counter()
            for job in [ground, *sites]:
                server.stdin.write(f"{folder / job.calculation.key}\n")
                server.stdin.flush()
                assert json.loads(server.stdout.readline())["returncode"] == 0
            ours = time.perf_counter() - start
            start, worst = time.perf_counter(), 0.0
            for job in sites:
                directory = folder / job.calculation.key
                done = subprocess.run(
                    [sys.executable, __file__, "--plain", str(directory)],
                    check=True,
                    capture_output=True,
                    text=True,
                    env=environment,
                )
                result = engine.read(job, directory)
                assert isinstance(result, SiteResult)
                assert result.ionization_eV is not None
                worst = max(worst, abs(float(done.stdout) - result.ionization_eV))
            rows.append((molecule, len(sites), ours, time.perf_counter() - start, worst))
        server.stdin.close()
        server.wait()
        server.stdout.close()
    table = Table(title=f"preset {arguments.preset}, one core; seconds per molecule with its ground state")
    for column in (
        "molecule",
        "sites",
        "engine (s)",
        "plain PySCF (s)",
        "ratio",
        "largest IP difference (meV)",
    ):
        table.add_column(column, justify="left" if column == "molecule" else "right")
    for molecule, sites_n, ours, theirs, worst in rows:
        table.add_row(
            molecule,
            str(sites_n),
            f"{ours:.1f}",
            f"{theirs:.1f}",
            f"{theirs / ours:.1f}",
            f"{worst * 1000:.2f}",
        )
    total_sites, ours, theirs = (sum(r[k] for r in rows) for k in (1, 2, 3))
    table.add_section()
    worst = max(r[4] for r in rows) * 1000
    table.add_row(
        "all", str(total_sites), f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.1f}", f"{worst:.2f}"
    )
    console = Console()
    console.print(table)
    console.print(
        f"sites per core-hour: engine {total_sites * 3600 / ours:.0f}, plain PySCF {total_sites * 3600 / theirs:.0f}"
    )


if __name__ == "__main__":
    main()
