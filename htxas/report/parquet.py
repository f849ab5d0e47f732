"""Parquet: one table of sites and one of molecules, written in row groups."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from htxas.datafile import CurveEntry, DatasetMeta, MoleculeEntry, SiteEntry
from htxas.datafile.together import FilesTogether
from htxas.domain.spectrum import Curve, Spectrum, broaden, smear

__all__ = ["MOLECULES_FILE", "SITES_FILE", "ParquetPairWriter", "molecule_row", "site_row"]

MOLECULES_FILE = "molecules.parquet"
SITES_FILE = "sites.parquet"
_ROWS_PER_GROUP = 512

_GRID = [
    ("spectrum_quantity", pa.string()),
    ("spectrum_start_eV", pa.float64()),
    ("spectrum_step_eV", pa.float64()),
    ("spectrum_sigma_eV", pa.float64()),
    *((f"spectrum_{a}", pa.list_(pa.float32())) for a in ("total", "x", "y", "z")),
]
_SITE_SCHEMA = pa.schema(
    [
        ("molecule", pa.string()),
        ("smiles", pa.string()),
        ("formula", pa.string()),
        ("molecule_complete", pa.bool_()),
        ("key", pa.string()),
        ("file_atom", pa.int32()),
        ("element", pa.string()),
        ("edge", pa.string()),
        ("multiplicity", pa.int32()),
        ("equivalent_file_atoms", pa.list_(pa.int32())),
        ("scale", pa.string()),
        ("window_eV", pa.float64()),
        ("corrections", pa.list_(pa.string())),
        ("another_state", pa.list_(pa.string())),
        # Sites with transitions have these, ...
        ("excitation_energy_eV", pa.float64()),
        ("ionization_eV", pa.float64()),
        ("ground_energy_eV", pa.float64()),
        ("hole_overlap", pa.float64()),
        ("stick_energies_eV", pa.list_(pa.float64())),
        *((f"stick_strengths_{a}", pa.list_(pa.float32())) for a in "xyz"),
        # ... and those with continuous spectra these; x, y and z only where they differ.
        ("edge_eV", pa.float64()),
        ("fermi_eV", pa.float64()),
        ("lifetime_eV", pa.float64()),
        ("normalisation", pa.string()),
        ("curve_energies_eV", pa.list_(pa.float64())),
        ("curve_absorption", pa.list_(pa.float32())),
        *((f"curve_absorption_{a}", pa.list_(pa.float32())) for a in "xyz"),
        ("background", pa.list_(pa.float32())),
        *_GRID,
    ]
)
_MOLECULE_SCHEMA = pa.schema(
    [
        ("molecule", pa.string()),
        ("smiles", pa.string()),
        ("formula", pa.string()),
        ("complete", pa.bool_()),
        ("missing", pa.list_(pa.string())),
        ("structure_key", pa.string()),
        ("ground_key", pa.string()),
        ("molecular_weight_u", pa.float64()),
        ("n_sites", pa.int32()),
        ("excitation_energy_eV", pa.float64()),
        ("edge_eV", pa.float64()),
        ("total_energy_eV", pa.float64()),
        ("homo_eV", pa.float64()),
        ("lumo_eV", pa.float64()),
        ("gap_eV", pa.float64()),
        ("dipole_D", pa.float64()),
        ("ground_corrections", pa.list_(pa.string())),
        ("symbols", pa.list_(pa.string())),
        ("positions_A", pa.list_(pa.list_(pa.float64(), 3))),
        ("moments_muB", pa.list_(pa.float64())),
        *_GRID,
    ]
)


def _grid(spectrum: Spectrum | None) -> dict[str, Any]:
    if spectrum is None:
        return {name: None for name, _ in _GRID}
    columns = spectrum.columns.astype(np.float32)
    return {
        "spectrum_quantity": spectrum.quantity.value,
        "spectrum_start_eV": spectrum.start * spectrum.step_eV,
        "spectrum_step_eV": spectrum.step_eV,
        "spectrum_sigma_eV": spectrum.sigma_eV,
        **{f"spectrum_{a}": columns[:, i] for i, a in enumerate(("total", "x", "y", "z"))},
    }


def _list(names: tuple[str, ...] | None) -> list[str] | None:
    return None if names is None else list(names)


def site_row(entry: MoleculeEntry, site: SiteEntry | CurveEntry) -> dict[str, Any]:
    """Return one row of ``sites.parquet``; the spectrum has the broadening and step of the molecule's."""
    grid = (
        {}
        if entry.spectrum is None
        else {"sigma_eV": entry.spectrum.sigma_eV, "step_eV": entry.spectrum.step_eV}
    )
    return {
        "molecule": entry.name,
        "smiles": entry.smiles,
        "formula": entry.formula,
        "molecule_complete": entry.complete,
        "key": site.key,
        "file_atom": site.file_atom,
        "element": site.element,
        "edge": site.edge,
        "multiplicity": site.multiplicity,
        "equivalent_file_atoms": list(site.equivalent_file_atoms),
        "scale": site.scale,
        "window_eV": site.window_eV,
        "corrections": _list(site.corrections),
        "another_state": _list(site.another_state),
        **(_sticks(site, grid) if isinstance(site, SiteEntry) else _continuum(site, grid)),
    }


def _sticks(site: SiteEntry, grid: Mapping[str, float]) -> dict[str, Any]:
    return {
        "excitation_energy_eV": site.excitation_energy_eV,
        "ionization_eV": site.ionization_eV,
        "ground_energy_eV": site.energies_eV["ground"],
        "hole_overlap": site.hole_overlap,
        "stick_energies_eV": site.sticks.energies_eV,
        **{
            f"stick_strengths_{a}": site.sticks.strengths[:, i].astype(np.float32)
            for i, a in enumerate("xyz")
        },
        **_grid(broaden(site.sticks, **grid)),
    }


def _continuum(site: CurveEntry, grid: Mapping[str, float]) -> dict[str, Any]:
    return {
        "edge_eV": site.edge_eV,
        "fermi_eV": site.fermi_eV,
        "lifetime_eV": site.lifetime_eV,
        "normalisation": site.normalisation,
        "curve_energies_eV": site.curve.energies_eV,
        "curve_absorption": site.curve.isotropic.astype(np.float32),
        **_polarised(site.curve),
        "background": site.background.astype(np.float32),
        **_grid(smear(site.curve, **grid)),
    }


def _polarised(curve: Curve) -> dict[str, Any]:
    x, y, z = curve.intensity.T.astype(np.float32)
    if np.array_equal(x, y) and np.array_equal(x, z):
        return {}
    return {"curve_absorption_x": x, "curve_absorption_y": y, "curve_absorption_z": z}


def molecule_row(entry: MoleculeEntry) -> dict[str, Any]:
    """Return one row of ``molecules.parquet``, atoms in file order; an incomplete molecule has no spectrum."""
    inverse = np.argsort(np.asarray(entry.file_order))
    ground, moments = entry.ground, entry.structure.moments_muB
    return {
        "molecule": entry.name,
        "smiles": entry.smiles,
        "formula": entry.formula,
        "complete": entry.complete,
        "missing": list(entry.missing),
        "structure_key": entry.structure.key,
        "ground_key": entry.ground_key,
        "molecular_weight_u": entry.molecular_weight_u,
        "n_sites": len(entry.sites) + len(entry.curves),
        "excitation_energy_eV": entry.excitation_energy_eV,
        "edge_eV": entry.edge_eV,
        "total_energy_eV": None if ground is None else ground.total_energy_eV,
        "homo_eV": None if ground is None else ground.homo_eV,
        "lumo_eV": None if ground is None else ground.lumo_eV,
        "gap_eV": None if ground is None else ground.gap_eV,
        "dipole_D": None if ground is None else ground.dipole_norm_D,
        "ground_corrections": None if ground is None else _list(ground.corrections),
        "symbols": [entry.structure.symbols[i] for i in inverse],
        "positions_A": entry.structure.positions_A[inverse].tolist(),
        "moments_muB": None if moments is None else moments[inverse].tolist(),
        **_grid(entry.spectrum if entry.complete else None),
    }


class ParquetPairWriter(FilesTogether):
    """Context manager that streams molecules into ``sites.parquet`` and ``molecules.parquet`` of a folder.

    The files appear under their names only when both are written.

    Raises
    ------
    UserError
        If the files cannot be written.
    """

    def __init__(self, directory: str | Path, meta: DatasetMeta) -> None:
        super().__init__(directory)
        self._meta = meta
        self._rows: dict[str, list[Mapping[str, Any]]] = {SITES_FILE: [], MOLECULES_FILE: []}

    def _open_all(self) -> None:
        metadata = {
            "htxas_campaign": self._meta.campaign,
            "htxas_engine": self._meta.engine,
            "htxas_parameters": json.dumps(dict(self._meta.parameters), sort_keys=True),
            "htxas_created_by": self._meta.created_by,
        }
        for name, schema in ((SITES_FILE, _SITE_SCHEMA), (MOLECULES_FILE, _MOLECULE_SCHEMA)):
            self._open[name] = pq.ParquetWriter(
                self._draft(name), schema.with_metadata(metadata), compression="zstd"
            )

    def add(self, entry: MoleculeEntry) -> None:
        """Append one molecule and its sites."""
        self._rows[MOLECULES_FILE].append(molecule_row(entry))
        self._rows[SITES_FILE].extend(site_row(entry, s) for s in entry.sites)
        self._rows[SITES_FILE].extend(site_row(entry, s) for s in entry.curves)
        self._flush(_ROWS_PER_GROUP)

    def _flush(self, at_least: int) -> None:
        for name, rows in self._rows.items():
            if len(rows) >= at_least:
                writer = self._open[name]
                with self._telling():
                    writer.write_table(pa.Table.from_pylist(rows, schema=writer.schema))
                rows.clear()

    def close(self) -> None:
        """Finish both files. Leaving the ``with`` block does the same."""
        self._flush(1)
        super().close()
