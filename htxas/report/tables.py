"""Tables for the terminal and the same facts as JSON documents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from htxas.domain.calculation import State
from htxas.domain.result import CurveResult, GroundResult, SiteResult
from htxas.report.results import (
    MoleculeView,
    SiteView,
    another_state,
    corrections,
    molecular_spectrum,
    site_spectrum,
)
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
# Title, scalar and digits of what a molecule's table shows of each site.
_STICK_COLUMNS = (
    ("first state (eV)", "excitation_energy_eV", 2),
    ("ionisation (eV)", "ionization_eV", 2),
    ("\N{GREEK CAPITAL LETTER SIGMA}f", "strength_sum", 4),
)
_CURVE_COLUMNS = (
    ("threshold (eV)", "edge_eV", 2),
    ("Fermi level (eV)", "fermi_eV", 2),
    ("white line", "white_line", 3),
)

QUERY_COLUMNS: tuple[str, ...] = (
    "key",
    "kind",
    "state",
    "formula",
    "smiles",
    "element",
    "edge",
    "atom",
    "onset_eV",
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


def _ended(record: CalculationRecord) -> str:
    extra = (record.provenance or {}).get("extra") or {}
    if extra.get("reported_end"):
        return str(extra["reported_end"])
    ended = (record.provenance or {}).get("ended")
    return str(ended)[:10] if ended else "nobody knows when"


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
    """Return a site as a JSON-able document; a finished one with its sticks or curve and its 0.5 eV spectrum."""
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
        result, spectrum = view.result, site_spectrum(view)
        document["result"] = {
            **(_curve_document(result) if isinstance(result, CurveResult) else _stick_document(result)),
            "scale": result.scale,
            "window_eV": result.window_eV,
            "spectrum_quantity": spectrum.quantity.value,
            "spectrum_energies_eV": spectrum.energies_eV.round(6).tolist(),
            "spectrum_total_x_y_z": spectrum.columns.tolist(),
        }
    return document


def _stick_document(result: SiteResult) -> dict[str, Any]:
    return {
        "excitation_energy_eV": result.excitation_energy_eV,
        "ionization_eV": result.ionization_eV,
        "total_energies_eV": result.energies_eV,
        "hole_overlap": result.hole_overlap,
        "stick_energies_eV": result.sticks.energies_eV.tolist(),
        "stick_strengths_xyz": result.sticks.strengths.tolist(),
    }


def _curve_document(result: CurveResult) -> dict[str, Any]:
    dos = result.dos
    return {
        "edge_eV": result.edge_eV,
        "fermi_eV": result.fermi_eV,
        "lifetime_eV": result.lifetime_eV,
        "normalisation": result.normalisation,
        "white_line": float(result.curve.isotropic.max()),
        "curve": {
            "energies_eV": result.curve.energies_eV.tolist(),
            "absorption_xyz": result.curve.intensity.tolist(),
            "background": result.background.tolist(),
        },
        "dos": None
        if dos is None
        else {
            "energies_eV": dos.energies_eV.tolist(),
            "kinds": list(dos.kinds),
            "density_spdf": dos.density.tolist(),
            "charges": dos.charges.tolist(),
            "broadening_eV": dos.broadening_eV,
        },
    }


def site_table(view: SiteView) -> RenderableType:
    """Return what a person wants to know of a site: where it stands, its energies, its strongest transitions."""
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
    extra = (record.provenance or {}).get("extra") or {}
    if extra.get("adopted"):
        facts.add_row(
            "adopted", f"structure from {extra['structure']['structure']}, the run ended {_ended(record)}"
        )
    else:
        facts.add_row(
            "time", f"{_number(record.wall_s, 1)} s on {record.host or '-'}, attempt {record.attempts}"
        )
    if extra.get("warnings"):
        facts.add_row(
            "warnings", ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in extra["warnings"].items())
        )
    facts.add_row("corrections", ", ".join(corrections(record)) or "none")
    if others := another_state(record):
        facts.add_row(
            "another state?", f"{', '.join(others)}: may not be what the usual iteration was on its way to"
        )
    facts.add_row("directory", record.directory or "-")
    facts.add_row("campaigns", ", ".join(record.campaigns))
    match result:
        case SiteResult():
            return _with_sticks(facts, result, view.core)
        case CurveResult():
            _add_curve(facts, result)
    return facts


def _add_curve(facts: Table, result: CurveResult) -> None:
    total = result.curve.isotropic
    facts.add_row("threshold", f"{result.edge_eV:.3f} eV  ({result.scale})")
    facts.add_row("Fermi level", f"{result.fermi_eV:.3f} eV, on the scale of the code")
    facts.add_row("white line", f"{total.max():.3f} at {result.curve.energies_eV[total.argmax()]:.2f} eV")
    facts.add_row("normalisation", result.normalisation)
    facts.add_row(
        "lifetime", f"{result.lifetime_eV:.3f} eV full width of the core hole, in the curve already"
    )
    facts.add_row("reaches to", f"{result.window_eV:.1f} eV above the threshold, {len(total)} points")


def _with_sticks(facts: Table, result: SiteResult, core: str) -> RenderableType:
    facts.add_row("first state", f"{result.excitation_energy_eV:.3f} eV  ({result.scale})")
    facts.add_row(f"{core} ionisation", f"{_number(result.ionization_eV, 3)} eV")
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
    spectrum = molecular_spectrum(view) if view.complete else None
    missing = [s.record.key for s in view.missing]
    if view.ground_record is not None and view.ground is None:
        missing.append(view.ground_record.key)
    return {
        "name": view.record.name,
        "campaign": view.record.campaign,
        "smiles": view.record.smiles,
        "formula": view.atoms.formula,
        "structure_key": view.record.structure_key,
        "geometry": view.structure.provenance,
        "complete": view.complete,
        "missing": missing,
        "ground": _ground_document(view),
        "sites": [
            {**record_document(s.record), "file_atom": s.file_atom, "multiplicity": s.multiplicity}
            for s in view.sites
        ],
        "spectrum": None
        if spectrum is None
        else {
            "sigma_eV": spectrum.sigma_eV,
            "quantity": spectrum.quantity.value,
            "energies_eV": spectrum.energies_eV.round(6).tolist(),
            "total_x_y_z": spectrum.columns.tolist(),
        },
    }


def _ground_document(view: MoleculeView) -> dict[str, Any] | None:
    ground = view.ground
    if view.ground_record is None:
        return None
    return {
        **record_document(view.ground_record),
        "result": None
        if ground is None
        else {
            "total_energy_eV": ground.total_energy_eV,
            "homo_eV": ground.homo_eV,
            "lumo_eV": ground.lumo_eV,
            "gap_eV": ground.gap_eV,
            "dipole_D": None if ground.dipole_D is None else ground.dipole_D.tolist(),
            "reference": ground.reference,
            "levels_known_to_eV": _known_to_eV(ground),
        },
    }


def _known_to_eV(ground: GroundResult) -> float | None:
    known = ground.pdos.known_to_eV
    return known if math.isfinite(known) else None


def molecule_table(view: MoleculeView) -> RenderableType:
    """Return a molecule for the terminal: its facts and one row per site."""
    facts = _facts()
    facts.add_row("molecule", Text(view.record.name, style="bold"))
    facts.add_row("campaign", view.record.campaign)
    facts.add_row("structure", f"{view.atoms.formula}  {view.record.smiles or ''}".rstrip())
    facts.add_row("geometry", _origin(view.structure.provenance))
    if view.ground_record is not None:
        facts.add_row("ground state", _state(view.ground_record))
    if view.ground is not None:
        ground = view.ground
        facts.add_row(
            "gap",
            f"{ground.gap_eV:.3f} eV  (HOMO {ground.homo_eV:.3f}, LUMO {ground.lumo_eV:.3f}"
            + (")" if ground.reference == "vacuum" else f"; from {ground.reference})"),
        )
        known = _known_to_eV(ground)
        if known is not None:
            facts.add_row("levels", f"computed to {known - ground.homo_eV:.1f} eV above the HOMO")
        if ground.dipole_norm_D is not None:
            facts.add_row("dipole", f"{ground.dipole_norm_D:.3f} D")
    done = len(view.sites) - len(view.missing)
    verdict = Text("complete", style="green") if view.complete else Text("incomplete", style="red")
    facts.add_row("spectrum", verdict + Text(f"  {done} of {len(view.sites)} sites", style="none"))
    table = Table(box=None, pad_edge=False)
    table.add_column("site", style="bold")
    columns = _columns({name for site in view.sites for name in site.record.scalars})
    for column in ("\N{MULTIPLICATION SIGN}", *(title for title, _, _ in columns), "s"):
        table.add_column(column, justify="right")
    table.add_column("state")
    table.add_column("key", style="dim")
    for site in sorted(view.sites, key=lambda s: s.file_atom or 0):
        scalars = site.record.scalars
        table.add_row(
            site.label,
            str(site.multiplicity),
            *(_number(scalars.get(name), digits) for _, name, digits in columns),
            _number(site.record.wall_s, 1),
            _state(site.record),
            site.record.key[:12],
        )
    return Group(facts, "", table)


def _columns(scalars: set[str]) -> tuple[tuple[str, str, int], ...]:
    if not scalars:  # nothing is finished: nobody knows of which kind the spectra will be
        return ()
    return _CURVE_COLUMNS if "edge_eV" in scalars else _STICK_COLUMNS


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
        record.onset_eV,
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
    for column in ("onset (eV)", "gap (eV)", "s"):
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
            _number(row["onset_eV"]),
            _number(row["gap_eV"]),
            _number(row["wall_s"], 1),
        )
    if count == 0:
        return Text("nothing matches")
    tail = f"the first {count}; --limit shows more" if limit and count >= limit else f"{count} found"
    return Group(table, Text(tail, style="dim"))
