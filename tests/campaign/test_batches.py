from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from htxas.campaign.batches import Task, Work, pack, useful_target_s
from htxas.domain.identity import content_key

seconds = st.floats(0.01, 500.0)


@st.composite
def works(draw: st.DrawFn) -> list[Work]:
    found = []
    for m in range(draw(st.integers(0, 12))):
        ground = Task(f"g{m}", draw(seconds)) if draw(st.booleans()) else None
        sites = tuple(Task(f"s{m}.{i}", draw(seconds)) for i in range(draw(st.integers(0, 9))))
        found.append(Work(ground, sites))
    return found


@given(works(), st.floats(1.0, 900.0), st.floats(1.0, 3.0), st.integers(1, 12))
def test_every_task_is_in_one_batch_after_its_ground_state(
    given_works: list[Work], target_s: float, factor: float, most: int
) -> None:
    split_above_s = target_s * factor
    batches = list(
        pack(given_works, campaign="c", target_s=target_s, split_above_s=split_above_s, most_keys=most)
    )
    counts = Counter(k for b in batches for k in b.keys)
    assert counts == Counter(t.key for w in given_works for t in w.tasks)
    place = {k: (i, j) for i, b in enumerate(batches) for j, k in enumerate(b.keys)}
    ids = {b.id: i for i, b in enumerate(batches)}
    for work in given_works:
        if work.ground is None:
            continue
        for site in work.sites:
            ground_batch, ground_place = place[work.ground.key]
            site_batch, site_place = place[site.key]
            if site_batch == ground_batch:
                assert ground_place < site_place
            else:
                after = batches[site_batch].after
                assert after is not None
                assert ids[after] == ground_batch
    for batch in batches:
        assert batch.id == content_key(sorted(batch.keys))
        whole = {w for w in given_works for t in w.tasks if t.key in batch.keys}
        assert batch.estimate_s <= max(target_s, *(w.seconds for w in whole)) * (1 + 1e-9)


def test_cheap_molecules_stay_whole_and_dear_ones_are_split() -> None:
    cheap = Work(Task("g1", 10.0), (Task("a", 10.0), Task("b", 10.0)))
    dear = Work(Task("g2", 100.0), tuple(Task(k, 400.0) for k in "wxyz"))
    batches = list(pack([cheap, cheap_like("2"), dear], campaign="c", target_s=600.0, split_above_s=1000.0))
    split = [b for b in batches if b.after is not None]
    assert [b.keys for b in batches if b not in split] == [("g2",), ("g1", "a", "b", "g2-2", "a2", "b2")]
    assert [b.keys for b in split] == [("w",), ("x",), ("y",), ("z",)]


def cheap_like(suffix: str) -> Work:
    return Work(Task(f"g2-{suffix}", 10.0), (Task(f"a{suffix}", 10.0), Task(f"b{suffix}", 10.0)))


def test_nothing_left_makes_no_batch() -> None:
    assert list(pack([Work(None, ())], campaign="c", target_s=1.0, split_above_s=2.0)) == []


def test_small_campaigns_get_enough_batches_to_share() -> None:
    assert useful_target_s(600.0, 160.0, 16) == 10.0
    assert useful_target_s(600.0, 1e9, 16) == 600.0
