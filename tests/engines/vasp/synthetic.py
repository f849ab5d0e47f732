"""Files in VASP's layout with made-up numbers: ``vasprun.xml``, ``OUTCAR``, and POTCARs that are a head only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ZVAL = {"H": 1, "C": 4, "O": 6, "Mg": 10, "Si": 4}


def potcar(name: str, element: str, *, zval: float | None = None, enmax: float = 400.0) -> str:
    """Return a POTCAR without a potential."""
    z = ZVAL[element] if zval is None else zval
    return (
        f"  PAW_PBE {name} 01Jan2000\n {z:.10f}\n parameters from PSCTR are:\n"
        f"   VRHFIN ={element}: made up\n   LEXCH  = PE\n   EATOM  =   100.0000 eV,    7.3500 Ry\n\n"
        f"   TITEL  = PAW_PBE {name} 01Jan2000\n   LULTRA =        F    use ultrasoft PP ?\n"
        f"   POMASS =   16.000; ZVAL   =    {z:.3f}    mass and valenz\n"
        f"   RCORE  =    1.520    outmost cutoff radius\n   ENMAX  =  {enmax:.3f}; ENMIN  =  300.000 eV\n"
        "  there is no potential in this file: it is made up\n End of Dataset\n"
    )


def library(folder: Path) -> Path:
    """Write a library of such POTCARs, named as VASP's for GW."""
    for name, element in (("H_GW", "H"), ("C_GW", "C"), ("O_GW", "O"), ("Mg_sv_GW", "Mg"), ("Si_GW", "Si")):
        (folder / name).mkdir(parents=True)
        (folder / name / "POTCAR").write_text(potcar(name, element))
    return folder


@dataclass
class Run:
    """What a run has to tell; energies in eV, lengths in Angstrom."""

    title: str
    lattice: np.ndarray
    fractional: np.ndarray
    species: list[tuple[str, int]]
    titels: list[str]
    weights: np.ndarray
    levels: np.ndarray  # (k, bands)
    occupations: np.ndarray  # (k, bands): 1 if full
    energy: float
    entropy: float = 0.0
    fermi: float = 0.0
    version: str = "6.4.2"
    nelm: int = 100
    steps: int = 12
    converged: bool = True
    projections: np.ndarray | None = None  # (k, bands, atoms, 3 or 4)
    table: np.ndarray | None = None  # (n, 7)
    incar: dict[str, str] = field(default_factory=dict)

    @property
    def symbols(self) -> list[str]:
        return [e for e, n in self.species for _ in range(n)]


def _vectors(name: str, rows: np.ndarray, indent: str) -> str:
    body = "".join(f"{indent} <v>{''.join(f'{x:17.8f}' for x in np.atleast_1d(r))} </v>\n" for r in rows)
    return f'{indent}<varray name="{name}" >\n{body}{indent}</varray>\n'


def _structure(run: Run, name: str) -> str:
    volume = abs(np.linalg.det(run.lattice))
    return (
        f' <structure name="{name}" >\n  <crystal>\n{_vectors("basis", run.lattice, "   ")}'
        f'   <i name="volume"> {volume:15.8f} </i>\n'
        f"{_vectors('rec_basis', np.linalg.inv(run.lattice).T, '   ')}  </crystal>\n"
        f"{_vectors('positions', run.fractional % 1.0, '  ')} </structure>\n"
    )


def _energies(fr: float, wo: float, zero: float, indent: str) -> str:
    names = (("e_fr_energy", fr), ("e_wo_entrp", wo), ("e_0_energy", zero))
    body = "".join(f'{indent} <i name="{n}"> {e:16.8f} </i>\n' for n, e in names)
    return f"{indent}<energy>\n{body}{indent}</energy>\n"


def _levels(run: Run, indent: str) -> str:
    text = f'{indent}<eigenvalues>\n{indent} <array>\n{indent}  <dimension dim="1">band</dimension>\n'
    text += (
        f'{indent}  <dimension dim="2">kpoint</dimension>\n{indent}  <dimension dim="3">spin</dimension>\n'
    )
    text += f"{indent}  <field>eigene</field>\n{indent}  <field>occ</field>\n{indent}  <set>\n"
    text += f'{indent}   <set comment="spin 1">\n'
    for k, (levels, occupations) in enumerate(zip(run.levels, run.occupations, strict=True), 1):
        rows = "".join(
            f"{indent}     <r> {e:9.4f} {o:9.4f} </r>\n" for e, o in zip(levels, occupations, strict=True)
        )
        text += f'{indent}    <set comment="kpoint {k}">\n{rows}{indent}    </set>\n'
    return text + f"{indent}   </set>\n{indent}  </set>\n{indent} </array>\n{indent}</eigenvalues>\n"


def _projections(run: Run) -> str:
    shares = run.projections
    assert shares is not None
    names = ("band", "kpoint", "spin")
    text = f"  <projected>\n{_levels(run, '   ')}   <array>\n" + '    <dimension dim="1">ion</dimension>\n'
    text += "".join(f'    <dimension dim="{i}">{n}</dimension>\n' for i, n in enumerate(names, 2))
    text += "".join(f"    <field>  {n}</field>\n" for n in "spdf"[: shares.shape[3]])
    text += '    <set>\n     <set comment="spin1">\n'
    for k, bands in enumerate(shares, 1):
        text += f'      <set comment="kpoint {k}">\n'
        for b, atoms in enumerate(bands, 1):
            rows = "".join(f"        <r>{''.join(f'{x:10.4f}' for x in atom)} </r>\n" for atom in atoms)
            text += f'       <set comment="band {b}">\n{rows}       </set>\n'
        text += "      </set>\n"
    return text + "     </set>\n    </set>\n   </array>\n  </projected>\n"


def vasprun(run: Run) -> str:
    """Return a ``vasprun.xml``."""
    zero = run.energy
    wo, fr = zero + run.entropy / 2, zero - run.entropy / 2
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n <generator>\n'
    text += '  <i name="program" type="string">vasp </i>\n'
    text += f'  <i name="version" type="string">{run.version}  </i>\n </generator>\n <incar>\n'
    text += "".join(f'  <i type="string" name="{n}"> {v}</i>\n' for n, v in run.incar.items()) + " </incar>\n"
    points = np.column_stack([np.linspace(0, 0.5, len(run.weights)), np.zeros((len(run.weights), 2))])
    text += ' <kpoints>\n  <generation param="Gamma">\n'
    text += '   <v type="int" name="divisions">       1        1        1 </v>\n'
    text += '   <v name="usershift">      0.00000000       0.00000000       0.00000000 </v>\n'
    text += "".join(
        f'   <v name="genvec{i + 1}"> {v[0]:15.8f} {v[1]:15.8f} {v[2]:15.8f} </v>\n'
        for i, v in enumerate(np.eye(3))
    )
    text += '   <v name="shift">      0.00000000       0.00000000       0.00000000 </v>\n  </generation>\n'
    text += (
        _vectors("kpointlist", points, "  ")
        + _vectors("weights", run.weights[:, None], "  ")
        + " </kpoints>\n"
    )
    text += (
        f' <parameters>\n  <separator name="general" >\n   <i type="string" name="SYSTEM">{run.title}</i>\n'
    )
    text += f'   <i type="int" name="NELM"> {run.nelm}</i>\n   <i type="int" name="ISPIN">     1</i>\n'
    text += "  </separator>\n </parameters>\n <atominfo>\n"
    text += f"  <atoms> {len(run.symbols):7d} </atoms>\n  <types> {len(run.species):7d} </types>\n"
    text += '  <array name="atoms" >\n   <dimension dim="1">ion</dimension>\n   <field type="string">element</field>\n'
    text += '   <field type="int">atomtype</field>\n   <set>\n'
    for t, (element, count) in enumerate(run.species, 1):
        text += f"    <rc><c>{element:2s}</c><c>{t:4d}</c></rc>\n" * count
    text += '   </set>\n  </array>\n  <array name="atomtypes" >\n   <dimension dim="1">type</dimension>\n'
    for kind, name in (("int", "atomspertype"), ("string", "element")):
        text += f'   <field type="{kind}">{name}</field>\n'
    text += "   <field>mass</field>\n   <field>valence</field>\n"
    text += '   <field type="string">pseudopotential</field>\n   <set>\n'
    for (element, count), titel in zip(run.species, run.titels, strict=True):
        text += f"    <rc><c>{count:4d}</c><c>{element:2s}</c><c> 1.00000000</c><c> {ZVAL[element]:.8f}</c>"
        text += f"<c>  {titel:38s}</c></rc>\n"
    text += "   </set>\n  </array>\n </atominfo>\n" + _structure(run, "initialpos") + " <calculation>\n"
    for step in range(run.steps):
        away = 0.0 if step == run.steps - 1 else 10.0 ** -(step - 2)
        text += f"  <scstep>\n{_energies(fr + away, wo + away, zero + away, '   ')}  </scstep>\n"
    text += _structure(run, "").replace(' name=""', "")
    text += _energies(fr, zero, 0.0, "  ")  # wrong in genuine files, too
    text += _levels(run, "  ")
    text += f'  <dos>\n   <i name="efermi"> {run.fermi:15.8f} </i>\n   <total>\n    <array>\n'
    text += '     <dimension dim="1">gridpoints</dimension>\n     <dimension dim="2">spin</dimension>\n'
    text += (
        "     <field>energy</field>\n     <field>total</field>\n     <field>integrated</field>\n     <set>\n"
    )
    text += '      <set comment="spin 1">\n       <r>    -10.0000     0.0000     0.0000 </r>\n'
    text += "       <r>     10.0000     0.0000     0.0000 </r>\n      </set>\n"
    text += "     </set>\n    </array>\n   </total>\n  </dos>\n"
    if run.projections is not None:
        text += _projections(run)
    return text + " </calculation>\n" + _structure(run, "finalpos") + "</modeling>\n"


def outcar(run: Run) -> str:
    """Return an ``OUTCAR``."""
    rule = "-" * 40
    text = f" vasp.{run.version} 20Jul23 (build Jan 01 2024 00:00:00) complex\n\n"
    text += "".join(f" POTCAR:    {t}\n" for t in run.titels)
    text += f"\n SYSTEM =  {run.title:40s}\n POSCAR =  {run.title:40s}\n\n Electronic Relaxation 1\n"
    text += f"   NELM   = {run.nelm:6d};   NELMIN=  2; NELMDL= -5     # of ELM steps\n"
    text += "   EDIFF  = 0.1E-05   stopping-criterion for ELM\n"
    zero = run.energy
    for step in range(1, run.steps + 1):
        text += f"\n{rule} Iteration      1({step:4d})  {rule}\n\n"
        text += f"  free energy    TOTEN  =   {zero:17.8f} eV\n\n"
    if run.converged:
        text += f"{rule[:24]} aborting loop because EDIFF is reached {rule}\n\n"
    elif run.version.startswith("6"):
        text += f"{rule[:24]} aborting loop EDIFF was not reached (unconverged) {rule[:24]}\n\n"
    text += f"  energy  without entropy={zero:17.8f}  energy(sigma->0) ={zero:17.8f}\n"
    text += f" E-fermi : {run.fermi:9.4f}     XC(G=0): -10.0000     alpha+bet : -8.0000\n"
    if run.table is not None:
        text += (
            "\n  frequency dependent IMAGINARY DIELECTRIC FUNCTION (independent particle, no local field effects) "
            "density-density\n     E(ev)      X         Y         Z        XY        YZ        ZX\n  "
            + "-" * 110
            + "\n"
        )
        text += "".join("".join(f"{x:12.6f}" for x in row) + "\n" for row in run.table) + "\n"
    text += " General timing and accounting informations for this job:\n " + "=" * 56 + "\n"
    text += "                  Total CPU time used (sec):       12.345\n"
    return text + "                 Voluntary context switches:          321\n"
