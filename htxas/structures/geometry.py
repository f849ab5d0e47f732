"""Geometries made by htxas, each made once.

The identity of a calculation is the content of its geometry, digit by digit, so a geometry must not be made
twice: another processor or library version would give other last digits and the whole campaign would be computed
again. Every geometry is therefore kept in a folder, under the hash of what was asked for (canonical SMILES or
structure, and the recipe; not versions), with what made it (versions, energy) written inside.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.identity import content_key
from htxas.domain.structure import POSITION_DECIMALS, Structure
from htxas.errors import StructureError, UserError
from htxas.structures.relax import Relaxed, Relaxer, XtbRelaxer
from htxas.structures.smiles import broken_bond, embed, parse_smiles
from htxas.structures.source import SourceMolecule

__all__ = ["Geometry", "GeometryMaker"]

_SCHEMA = 1
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Geometry:
    """A geometry and how it was made.

    Attributes
    ----------
    symbols, positions_A
        Atoms; positions in Angstrom on a 1e-6 A grid, shape (n, 3).
    provenance
        ``method``, ``energy_eV``, recipe, steps, programs: the ``geometry`` entry of a molecule's provenance.
    """

    symbols: tuple[str, ...]
    positions_A: Floats
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GeometryMaker:
    """Makes geometries and remembers them.

    Attributes
    ----------
    cache_dir
        Folder of finished geometries; made when first needed. May be shared by processes.
    relaxer
        Method of relaxation.
    conformers, seed
        How many ETKDGv3 conformers are tried, and the random seed.
    shipped
        More folders to look in, never written: geometries that come with a workflow, so that its calculations
        have the same identity on every machine.
    """

    cache_dir: Path
    relaxer: Relaxer = field(default_factory=XtbRelaxer)
    conformers: int = 10
    seed: int = 61453
    shipped: tuple[Path, ...] = ()

    def from_smiles(self, smiles: str, *, where: str | None = None) -> Geometry:
        """Return the relaxed geometry of a SMILES, atoms in the order of the SMILES, hydrogens last.

        Raises
        ------
        StructureError
            Unfit SMILES, no conformer, relaxation not converged, or bonds that changed.
        UserError
            A damaged cache file, or a full disk.
        """
        parsed = parse_smiles(smiles, where=where)
        request = {
            "smiles": parsed.canonical,
            "conformers": {"method": "ETKDGv3", "number": self.conformers, "seed": self.seed},
            "relaxation": self.relaxer.settings,
        }
        made = self._once(request, lambda: self._make(parsed.canonical, where), where)
        place = np.argsort(parsed.order)  # atom i of the SMILES as given is atom place[i] of the canonical
        return Geometry(tuple(made.symbols[i] for i in place), made.positions_A[place], made.provenance)

    def relax(self, source: SourceMolecule) -> SourceMolecule:
        """Return ``source`` with its geometry relaxed; the given geometry is kept in the provenance.

        Raises
        ------
        StructureError
            A crystal, a molecule with magnetic moments or atoms held in place, or relaxation not converged.
        UserError
            A damaged cache file, or a full disk.
        """
        given, where = source.structure, f"{source.provenance.get('file')}, {source.name}"
        if given.is_periodic:
            raise StructureError("crystals are not relaxed here", where=where, hint="give a relaxed crystal")
        if given.moments_muB is not None:
            raise StructureError(
                "a molecule with magnetic moments is not relaxed here, where closed shells are",
                where=where,
                hint="give a relaxed geometry, or take the moments out to go without spin",
            )
        if source.constraints:
            raise StructureError(
                f"the file holds atoms in place ({', '.join(source.constraints)}); relaxing here would move them",
                where=where,
                hint="give a relaxed geometry, or take the constraints out to relax all atoms",
            )
        request = {"structure": given.key, "relaxation": self.relaxer.settings}

        def make() -> tuple[tuple[str, ...], Floats, dict[str, Any]]:
            relaxed = self.relaxer.relax(given.symbols, given.positions_A, where=where)
            start = {"structure": given.key, **source.provenance.get("geometry", {})}
            return given.symbols, relaxed.positions_A, {**_facts(relaxed), "start": start}

        made = self._once(request, make, where)
        structure, order = Structure.from_atoms(made.symbols, made.positions_A, where=where)
        provenance = {**source.provenance, "geometry": dict(made.provenance)}
        return SourceMolecule(
            source.name, structure, tuple(source.order[i] for i in order), source.smiles, provenance
        )

    def _make(self, canonical: str, where: str | None) -> tuple[tuple[str, ...], Floats, dict[str, Any]]:
        import rdkit

        start = embed(canonical, conformers=self.conformers, seed=self.seed, where=where)
        relaxed = self.relaxer.relax(start.symbols, start.positions_A, where=where)
        broken = broken_bond(start.symbols, relaxed.positions_A, start.bonds)
        if broken:
            raise StructureError(
                f"{canonical!r} is not stable with {relaxed.method}: {broken}",
                where=where,
                hint="give a geometry (xyz, SDF)",
            )
        facts = _facts(relaxed)
        facts["start"] = {
            "program": f"RDKit {rdkit.__version__}",
            "conformer": start.index,
            "force_field": start.force_field,
            "energy_kcal_mol": round(start.energy_kcal_mol, 6),
            "unspecified_stereo": start.unspecified_stereo,
        }
        return start.symbols, relaxed.positions_A, facts

    def _once(
        self,
        request: dict[str, Any],
        make: Callable[[], tuple[tuple[str, ...], Floats, dict[str, Any]]],
        where: str | None,
    ) -> Geometry:
        key = content_key({"schema": _SCHEMA, **request})
        path = self.cache_dir / f"{key}.xyz"
        for folder in (*self.shipped, self.cache_dir):
            if (folder / path.name).exists():
                return _read(folder / path.name, key)
        symbols, positions_A, facts = make()
        _write(path, symbols, positions_A, {"request": request, "made": facts}, where)
        return _read(path, key)


def _facts(relaxed: Relaxed) -> dict[str, Any]:
    return {
        "method": relaxed.method,
        "energy_eV": round(relaxed.energy_eV, 9),
        "program": relaxed.program,
        "steps": relaxed.steps,
        "fmax_eV_per_A": round(relaxed.fmax_eV_per_A, 6),
    }


def _atom_lines(symbols: tuple[str, ...], positions_A: Floats) -> list[str]:
    grid = np.round(positions_A, POSITION_DECIMALS) + 0.0
    return [f"{s} {x:.6f} {y:.6f} {z:.6f}" for s, (x, y, z) in zip(symbols, grid.tolist(), strict=True)]


def _write(
    path: Path, symbols: tuple[str, ...], positions_A: Floats, card: dict[str, Any], where: str | None
) -> None:
    atoms = _atom_lines(symbols, positions_A)
    card = {**card, "atoms": content_key(atoms)}
    text = "\n".join([str(len(atoms)), json.dumps(card, sort_keys=True), *atoms, ""])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).chmod(0o644)
            # Never over another process's geometry: whoever came first decides the digits for all.
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(  # not about this molecule: skipping it would not help
            f"the geometry cannot be kept in {path.parent}: {error.strerror}",
            where=where,
            hint="free space or choose another folder",
        ) from None


def _read(path: Path, key: str) -> Geometry:
    try:
        count, card_text, *atoms = path.read_text(encoding="utf-8").splitlines()
        card = json.loads(card_text)
        words = [line.split() for line in atoms]
        symbols = tuple(w[0] for w in words)
        positions = np.array([[float(v) for v in w[1:]] for w in words], dtype=np.float64)
        sound = (
            int(count) == len(atoms)
            and content_key(atoms) == card["atoms"]
            and content_key({"schema": _SCHEMA, **card["request"]}) == key
        )
        provenance = {**card["made"], "request": card["request"]}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"unreadable kept geometry: {error}", where=str(path), hint="delete it; it will be made again"
        ) from None
    if not sound:
        raise UserError(
            "this kept geometry was altered", where=str(path), hint="delete it; it will be made again"
        )
    positions.flags.writeable = False
    return Geometry(symbols, positions, provenance)
