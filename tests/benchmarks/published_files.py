"""Files of the published layout, made up: what the real database looks like to a reader, at any size.

Layout as ``ck_edge_maker`` writes it (Shibata et al., Sci. Data 9, 214 (2022)): groups are QM9 numbers, atoms their
numbers in QM9; real numbers in float64, gzip 9, chunks of h5py's choice; no attributes but those of the sites.
Occupied levels are there, and eigenvalues have a zero of their own. Spectra are what the eigenvalues give; a site's
sticks are one of a few hundred patterns, so that writing 117,340 sites takes minutes. The same arguments give the same
files.
"""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rdkit import Chem

MOLECULES, SITES = 22_155, 117_340  # of the published database
EIGEN_FILE, SITE_FILE, MOLECULE_FILE = (
    "site_eigen_dsf.hdf5",
    "site_spectra_0.5eV.hdf5",
    "mol_spectra_0.5eV.hdf5",
)
SMILES_FILE = "molecules.csv"
PATTERNS = 400
SIGMA_EV, STEP_EV, MARGIN_EV = 0.5, 0.1, 5.0


@dataclass(frozen=True)
class Molecule:
    gdb_id: int
    smiles: str
    electrons: int  # outside the noble-gas cores
    sites: tuple[tuple[int, int], ...]  # atom, multiplicity


@dataclass(frozen=True)
class Pattern:
    """Final states of a site: energies above the first (n,), squared matrix elements (n, 3), and their spectrum."""

    ev: np.ndarray
    dsf: np.ndarray
    energies: np.ndarray
    spectrum: np.ndarray


def write_files(
    folder: Path,
    *,
    molecules: int = MOLECULES,
    sites: int | None = SITES,
    smiles_file: Path | None = None,
    eigen: bool = True,
    seed: int = 0,
) -> None:
    """Write the three files, or two without ``eigen``, and ``molecules.csv`` (gdb_id, smiles)."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = choose_molecules(molecules, sites, smiles_file)
    with (folder / SMILES_FILE).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["gdb_id", "smiles"])
        writer.writerows([m.gdb_id, m.smiles] for m in chosen)
    patterns = [make_pattern(np.random.default_rng([seed, i])) for i in range(PATTERNS)]
    names = [SITE_FILE, MOLECULE_FILE, *([EIGEN_FILE] if eigen else [])]
    opened = {name: h5py.File(folder / name, "w") for name in names}
    try:
        for molecule in chosen:
            _write_molecule(opened, molecule, patterns, np.random.default_rng([seed, 1, molecule.gdb_id]))
    finally:
        for file in opened.values():
            file.close()


def choose_molecules(count: int, sites: int | None, smiles_file: Path | None) -> list[Molecule]:
    """Return ``count`` molecules with ``sites`` sites in all: classes of equivalent carbons, divided where that is few.

    Without ``sites``, as many as there are classes.

    Raises
    ------
    ValueError
        If that many sites cannot be made of them.
    """
    known = {} if smiles_file is None else _read_smiles(smiles_file)
    ids = sorted(known)[:: max(1, len(known) // count)][:count]
    pairs = [(i, known[i]) for i in ids]
    free = (i for i in range(1, 10**9) if i not in known)
    pairs += [(next(free), s) for s in islice(_made_up(), count - len(pairs))]
    described = [(i, s, *_describe(s)) for i, s in sorted(pairs)]
    found = sum(len(classes) for _, _, _, classes in described)
    missing = 0 if sites is None else sites - found
    for _, _, _, classes in described:
        for c in [c for c in classes if len(c) > 1]:
            while missing > 0 and len(c) > 1:  # the point group is smaller than the graph's
                classes.append([c.pop()])
                missing -= 1
    if missing:
        raise ValueError(f"{count} molecules do not have {sites} sites")
    return [
        Molecule(i, s, electrons, tuple(sorted((min(c), len(c)) for c in classes)))
        for i, s, electrons, classes in described
    ]


def _read_smiles(path: Path) -> dict[int, str]:
    with path.open(newline="") as stream:
        return {int(row["gdb_id"]): row["smiles"] for row in csv.DictReader(stream)}


def _made_up() -> Iterator[str]:
    """Yield chains with all kinds of bonds and ends, shortest first."""
    heads = ("C", "C=C", "C#C", "FC", "O=C", "N#C", "C1CC1", "c1ccccc1")
    for length in range(1, 9):
        for body in product("CNO", repeat=length):
            for head in heads:
                yield head + "C" + "".join(body) + "C"


def _describe(smiles: str) -> tuple[int, list[list[int]]]:
    """Return valence electrons and the classes of carbons that are alike in the graph."""
    molecule = Chem.MolFromSmiles(smiles)
    outer = {6: 4, 7: 5, 8: 6, 9: 7}
    electrons = sum(outer[a.GetAtomicNum()] + a.GetTotalNumHs() for a in molecule.GetAtoms())
    classes: dict[int, list[int]] = {}
    for atom, rank in zip(
        molecule.GetAtoms(), Chem.CanonicalRankAtoms(molecule, breakTies=False), strict=True
    ):
        if atom.GetAtomicNum() == 6:
            classes.setdefault(rank, []).append(atom.GetIdx())
    return electrons - Chem.GetFormalCharge(molecule), list(classes.values())


def make_pattern(rng: np.random.Generator) -> Pattern:
    """Return made-up final states: a strong first one or two, then ever denser ones to 24 to 36 eV."""
    end, n = rng.uniform(24.0, 36.0), int(rng.integers(100, 160))
    ev = np.r_[0.0, np.sort(end * rng.beta(1.6, 1.0, n - 2)), end]
    dsf = rng.gamma(0.5, 2e-4, (n, 3)) * np.exp(-ev / 15.0)[:, None]
    dsf[:2] += rng.gamma(2.0, 1e-3, (2, 3))
    energies = np.arange(math.floor(-MARGIN_EV), math.ceil(end + MARGIN_EV), STEP_EV)
    return Pattern(ev, dsf, energies, _spectrum(energies, ev, dsf))


def _spectrum(energies: np.ndarray, ev: np.ndarray, dsf: np.ndarray) -> np.ndarray:
    lines = np.exp(-0.5 * ((energies[:, None] - ev) / SIGMA_EV) ** 2) / (math.sqrt(2 * math.pi) * SIGMA_EV)
    xyz = 2.0 * lines @ dsf  # two spins
    return np.column_stack([xyz.mean(axis=1), xyz])


def _write_molecule(
    files: dict[str, h5py.File], molecule: Molecule, patterns: list[Pattern], rng: np.random.Generator
) -> None:
    name = str(molecule.gdb_id)
    groups = {file: handle.create_group(name) for file, handle in files.items() if file != MOLECULE_FILE}
    evs, dsfs = [], []
    for atom, multiplicity in molecule.sites:
        number = int(rng.integers(len(patterns)))
        pattern, excitation = patterns[number], float(rng.normal(287.5, 1.0))
        attributes = {
            "multiplicity": multiplicity,
            "final_energy_gs": -1000.0 * molecule.electrons,
            "final_energy_ex": -1000.0 * molecule.electrons + 100.0,
            "excitation_energy": excitation,
        }
        site = groups[SITE_FILE].create_group(str(atom))
        site.attrs.update(attributes)
        _write(site, "energies", pattern.energies, ("energies", number))
        _write(site, "spectrum", pattern.spectrum, ("spectrum", number))
        if EIGEN_FILE in groups:
            site = groups[EIGEN_FILE].create_group(str(atom))
            site.attrs.update(attributes | {"n_electron": molecule.electrons + 1})
            occupied = molecule.electrons // 2
            _write(site, "eigenvalues", _with_occupied(pattern.ev, occupied), ("ev", number, occupied))
            _write(site, "dsf", _with_occupied(pattern.dsf, occupied), ("dsf", number, occupied))
        evs.append(pattern.ev + excitation)
        dsfs.append(pattern.dsf * multiplicity)
    ev, total = np.concatenate(evs), sum(m for _, m in molecule.sites)
    energies = np.arange(math.floor(ev.min() - MARGIN_EV), math.ceil(ev.max() + MARGIN_EV), STEP_EV)
    group = files[MOLECULE_FILE].create_group(name)
    _write(group, "energies", energies, None)
    _write(group, "spectrum", _spectrum(energies, ev, np.concatenate(dsfs) / total), None)


def _with_occupied(values: np.ndarray, occupied: int) -> np.ndarray:
    """Return final states with occupied levels below them; the first final state of energies is at -2.3 eV."""
    if values.ndim == 1:
        return np.r_[-25.0 + 20.0 * np.arange(occupied) / occupied, values - 2.3]
    return np.concatenate([np.full((occupied, 3), 1e-5), values])


def _write(group: Any, name: str, array: np.ndarray, kept: tuple[Any, ...] | None) -> None:
    """Write an array as h5py does; chunks that are the same as before are not compressed again."""
    dataset = group.create_dataset(
        name, array.shape, array.dtype, compression="gzip", compression_opts=9, track_times=False
    )
    if kept is None:
        dataset[...] = array
        return
    for at, data in _compressed(kept, array.tobytes(), array.shape, dataset.chunks):
        dataset.id.write_direct_chunk(at, data)


@lru_cache(maxsize=20_000)
def _compressed(
    kept: tuple[Any, ...], data: bytes, shape: tuple[int, ...], chunks: tuple[int, ...]
) -> list[tuple[tuple[int, ...], bytes]]:
    array = np.frombuffer(data).reshape(shape)
    found = []
    for start in range(0, shape[0], chunks[0]):
        whole = np.zeros(chunks)
        piece = array[start : start + chunks[0]]
        whole[: len(piece)] = piece
        found.append(((start, *(0,) * (len(shape) - 1)), zlib.compress(whole.tobytes(), 9)))
    return found
