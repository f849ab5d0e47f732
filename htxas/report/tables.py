"""Tables for the terminal and the same facts as JSON documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from htxas.domain.calculation import State
from htxas.domain.spectrum import broaden
from htxas.report.results import MoleculeView, SiteView, another_state, corrections, molecular_spectrum
from htxas.store.records import CalculationRecord, StructureRecord

__all__ = [
    "QUERY_COLUMNS",
    "molecule_document",
    "molecule_table",
    "query_row",
    "query_table",
    "record_document",
    "site_document",
    "site_table",
]

_STATE_STYLE = {
    State.READY: "dim",
    State.RUNNING: "cyan",
    State.DONE: "green",
    State.FAILED: "red",
    State.QUARANTINED: "yellow",
}
_SHOWN_STICKS = 8

QUERY_COLUMNS: tuple[str, ...] = (
    "key",
    "kind",
    "state",
    "formula",
    "smiles",
    "element",
    "edge",
    "atom",
    "excitation_energy_eV",
    "ionization_eV",
    "gap_eV",
    "engine",
    "wall_s",
    "cause",
    "campaigns",
    "corrections",
    "another_state",
)
"""Columns of ``htxas query --csv``, and keys of its ``--json``."""


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _state(record: CalculationRecord) -> Text:
    text = record.state.value if record.cause is None else f"{record.state.value}: {record.cause.value}"
    return Text(text, style=_STATE_STYLE[record.state])


def _facts() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    return table


def record_document(record: CalculationRecord) -> dict[str, Any]:
    """Return a calculation as a JSON-able document."""
    return {
        "key": record.key,
        "kind": record.kind.value,
        "state": record.state.value,
        "cause": None if record.cause is None else record.cause.value,
        "message": record.message,
        "evidence": record.evidence,
        "engine": record.engine,
        "structure_key": record.structure_key,
        "parameters_key": record.parameters_key,
        "element": record.element,
        "edge": record.edge,
        "atom": record.atom,
        "attempts": record.attempts,
        "batch": record.batch,
        "estimate_s": record.estimate_s,
        "wall_s": record.wall_s,
        "host": record.host,
        "directory": record.directory,
        "campaigns": list(record.campaigns),
        "scalars": record.scalars,
        "corrections": list(corrections(record)),
        "another_state": list(another_state(record)),
        "updated": record.updated.isoformat(),
        "provenance": record.provenance,
    }


def site_document(view: SiteView) -> dict[str, Any]:
    """Return a site as a JSON-able document; a finished one with its sticks and its 0.5 eV spectrum."""
    document = {
        **record_document(view.record),
        "molecule": view.molecule,
        "file_atom": view.file_atom,
        "multiplicity": view.multiplicity,
        "smiles": view.structure.smiles,
        "formula": view.structure.structure.formula,
        "result": None,
    }
    if view.result is not None:
        spectrum = broaden(view.result.sticks)
        document["result"] = {
            "excitation_energy_eV": view.result.excitation_energy_eV,
            "ionization_eV": view.result.ionization_eV,
            "scale": view.result.scale,
            "total_energies_eV": view.result.energies_eV,
            "hole_overlap": view.result.hole_overlap,
            "window_eV": view.result.window_eV,
            "stick_energies_eV": view.result.sticks.energies_eV.tolist(),
            "stick_strengths_xyz": view.result.sticks.strengths.tolist(),
            "spectrum_energies_eV": spectrum.energies_eV.round(6).tolist(),
            "spectrum_total_x_y_z": spectrum.columns.tolist(),
        }
    return document


def site_table(view: SiteView) -> RenderableType:
    """Return what a person wants to know of a site: where it stands, its energies, its first transitions."""
    record, result = view.record, view.result
    facts = _facts()
    facts.add_row("site", Text(view.title, style="bold"))
    facts.add_row("key", record.key)
    facts.add_row("state", _state(record))
    if record.message:
        facts.add_row("message", record.message)
    for name, value in record.evidence.items():
        facts.add_row(f"  {name}", str(value))
    facts.add_row("structure", f"{view.structure.structure.formula}  {view.structure.smiles or ''}".rstrip())
    if view.multiplicity is not None:
        facts.add_row("multiplicity", str(view.multiplicity))
    facts.add_row("engine", record.engine)
    facts.add_row("time", f"{_number(record.wall_s, 1)} s on {record.host or '-'}, attempt {record.attempts}")
    facts.add_row("corrections", ", ".join(corrections(record)) or "none")
    if others := another_state(record):
        facts.add_row(
            "another state?", f"{', '.join(others)}: may not be what the usual iteration was on its way to"
        )
    facts.add_row("directory", record.directory or "-")
    facts.add_row("campaigns", ", ".join(record.campaigns))
    if result is None:
        return facts
    facts.add_row("first state", f"{result.excitation_energy_eV:.3f} eV  ({result.scale})")
    facts.add_row(f"{view.core} ionisation", f"{_number(result.ionization_eV, 3)} eV")
    facts.add_row("hole overlap", f"{result.hole_overlap:.4f}")
    facts.add_row(
        "states kept to",
        f"{result.window_eV:.1f} eV above the first; above the ionisation energy a discretised continuum",
    )
    title = f"strongest {_SHOWN_STICKS} of {len(result.sticks.energies_eV)} transitions"
    sticks = Table(title=title, title_justify="left", title_style="bold")
    for column in ("energy (eV)", "f", "f x", "f y", "f z"):
        sticks.add_column(column, justify="right")
    strongest = np.sort(np.argsort(result.sticks.isotropic)[::-1][:_SHOWN_STICKS])
    for i in strongest:
        values = [result.sticks.isotropic[i], *result.sticks.strengths[i]]
        sticks.add_row(f"{result.sticks.energies_eV[i]:.3f}", *(f"{v:.5f}" for v in values))
    return Group(facts, "", sticks)


def molecule_document(view: MoleculeView) -> dict[str, Any]:
    """Return a molecule as a JSON-able document: sites, ground state, and its spectrum only if it is complete."""
    ground = view.ground
    spectrum = molecular_spectrum(view) if view.complete else None
    return {
        "name": view.record.name,
        "campaign": view.record.campaign,
        "smiles": view.record.smiles,
        "formula": view.atoms.formula,
        "structure_key": view.record.structure_key,
        "geometry": view.structure.provenance,
        "complete": view.complete,
        "missing": [s.record.key for s in view.missing] + ([] if ground else [view.ground_record.key]),
        "ground": {
            **record_document(view.ground_record),
            "result": None
            if ground is None
            else {
                "total_energy_eV": ground.total_energy_eV,
                "homo_eV": ground.homo_eV,
                "lumo_eV": ground.lumo_eV,
                "gap_eV": ground.gap_eV,
                "dipole_D": ground.dipole_D.tolist(),
            },
        },
        "sites": [
            {**record_document(s.record), "file_atom": s.file_atom, "multiplicity": s.multiplicity}
            for s in view.sites
        ],
        "spectrum": None
        if spectrum is None
        else {
            "sigma_eV": spectrum.sigma_eV,
            "energies_eV": spectrum.energies_eV.round(6).tolist(),
            "total_x_y_z": spectrum.columns.tolist(),
        },
    }


def molecule_table(view: MoleculeView) -> RenderableType:
    """Return a molecule for the terminal: its facts and one row per site."""
    facts = _facts()
    facts.add_row("molecule", Text(view.record.name, style="bold"))
    facts.add_row("campaign", view.record.campaign)
    facts.add_row("structure", f"{view.atoms.formula}  {view.record.smiles or ''}".rstrip())
    facts.add_row("geometry", _origin(view.structure.provenance))
    facts.add_row("ground state", _state(view.ground_record))
    if view.ground is not None:
        ground = view.ground
        facts.add_row(
            "gap", f"{ground.gap_eV:.3f} eV  (HOMO {ground.homo_eV:.3f}, LUMO {ground.lumo_eV:.3f})"
        )
        facts.add_row("dipole", f"{float(np.linalg.norm(ground.dipole_D)):.3f} D")
    done = len(view.sites) - len(view.missing)
    verdict = Text("complete", style="green") if view.complete else Text("incomplete", style="red")
    facts.add_row("spectrum", verdict + Text(f"  {done} of {len(view.sites)} sites", style="none"))
    table = Table(box=None, pad_edge=False)
    table.add_column("site", style="bold")
    for column in (
        "\N{MULTIPLICATION SIGN}",
        "first state (eV)",
        "ionisation (eV)",
        "\N{GREEK CAPITAL LETTER SIGMA}f",
        "s",
    ):
        table.add_column(column, justify="right")
    table.add_column("state")
    table.add_column("key", style="dim")
    for site in sorted(view.sites, key=lambda s: s.file_atom or 0):
        scalars = site.record.scalars
        table.add_row(
            site.label,
            str(site.multiplicity),
            _number(scalars.get("excitation_energy_eV")),
            _number(scalars.get("ionization_eV")),
            _number(scalars.get("strength_sum"), 4),
            _number(site.record.wall_s, 1),
            _state(site.record),
            site.record.key[:12],
        )
    return Group(facts, "", table)


def _origin(provenance: Mapping[str, Any]) -> str:
    method = (provenance.get("geometry") or {}).get("method") or "as given"
    file, record = provenance.get("file"), provenance.get("record")
    return f"{method}, {file} record {record}" if file else str(method)


def query_row(record: CalculationRecord, structure: StructureRecord) -> dict[str, Any]:
    """Return one row of a query: the keys are :data:`QUERY_COLUMNS`."""
    values = (
        record.key,
        record.kind.value,
        record.state.value,
        structure.structure.formula,
        structure.smiles,
        record.element,
        record.edge,
        record.atom,
        record.scalars.get("excitation_energy_eV"),
        record.scalars.get("ionization_eV"),
        record.scalars.get("gap_eV"),
        record.engine,
        record.wall_s,
        None if record.cause is None else record.cause.value,
        list(record.campaigns),
        list(corrections(record)),
        list(another_state(record)),
    )
    return dict(zip(QUERY_COLUMNS, values, strict=True))


def query_table(rows: Iterable[dict[str, Any]], *, limit: int) -> RenderableType:
    """Return query rows for the terminal; says so when ``limit`` may have cut them."""
    table = Table(box=None, pad_edge=False)
    table.add_column("key", no_wrap=True)
    for column in ("kind", "state", "formula", "SMILES", "atom"):
        table.add_column(column)
    for column in ("first state (eV)", "gap (eV)", "s"):
        table.add_column(column, justify="right")
    count = 0
    for row in rows:
        count += 1
        state = State(row["state"])
        label = state.value if row["cause"] is None else f"{state.value}: {row['cause']}"
        table.add_row(
            row["key"][:12],
            row["kind"],
            Text(label, style=_STATE_STYLE[state]),
            row["formula"],
            row["smiles"] or "",
            "" if row["atom"] is None else f"{row['element']}[{row['atom']}] {row['edge']}",
            _number(row["excitation_energy_eV"]),
            _number(row["gap_eV"]),
            _number(row["wall_s"], 1),
        )
    if count == 0:
        return Text("nothing matches")
    tail = f"the first {count}; --limit shows more" if limit and count >= limit else f"{count} found"
    return Group(table, Text(tail, style="dim"))
