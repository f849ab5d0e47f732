"""How a profile says that engines are started, and what becomes of it in a pilot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from htxas.launch.pilots.settings import SiteSettings, engines_of, site_settings
from htxas.launch.work.engine_run import EngineRun, Engines
from tests.cluster.profiles import profile


@pytest.mark.parametrize(
    ("section", "slots"),
    [
        ({}, 1),
        ({"workers": 4, "cores_per_worker": 16, "memory_per_worker_GB": 16}, 4),
        ({"workers": 5}, 4),  # never more at once than asked for
        ({"workers": 2, "memory_per_worker_GB": 30}, 8),
        ({"workers": 1}, 16),
    ],
)
def test_an_engine_that_is_wider_than_a_worker_takes_several_places(
    tmp_path: Path, section: dict[str, Any], slots: int
) -> None:
    p = profile(tmp_path, engines={"pyscf": section})
    settings = site_settings(p, p.partition(), "htxas")
    run = settings.engines["pyscf"]
    assert run.slots == slots
    assert run.threads == section.get("cores_per_worker", 4)
    assert run.memory_MB == 1000 * section.get("memory_per_worker_GB", 4)
    assert SiteSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_places_are_those_of_the_partition(tmp_path: Path) -> None:
    partitions = {
        "main": {"walltime": 9000, "cores": 64},
        "small": {"walltime": 9000, "cores": 64, "workers": 8},
    }
    p = profile(tmp_path, partitions=partitions, engines={"pyscf": {"workers": 4}})
    assert engines_of(p, p.partition("main")).of("pyscf").slots == 4
    assert engines_of(p, p.partition("small")).of("pyscf").slots == 2


def test_an_engine_without_a_section_gets_what_a_worker_has(tmp_path: Path) -> None:
    p = profile(tmp_path)
    engines = engines_of(p, p.partition())
    assert engines.of("fake") == EngineRun(threads=4, memory_MB=4000)
    assert engines.told("fake") == {"threads": 4, "memory_MB": 4000, "cluster": "mine"}
    assert not engines.wide
    assert Engines.from_dict(json.loads(json.dumps(engines.to_dict()))) == engines


def test_settings_of_an_older_htxas_are_read() -> None:
    old = {"launcher": [], "program": [], "threads": 2, "environment": {}}
    assert EngineRun.from_dict(old) == EngineRun(threads=2)
