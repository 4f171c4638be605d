"""The backlog: which scenes to get so that what is missing is closed for few bytes (design section 12)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coverage_pipeline.demand.partition_files import SCENE_COLUMNS, PartitionFiles, read_partition_files
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.grid.daymask import day_bit
from coverage_pipeline.matchup.versions import held_in_older_version, scenes_of_holdings
from coverage_pipeline.months import Month
from coverage_pipeline.requests.backlog_schema import BACKLOG_SCHEMA, CLOSED, BacklogMetadata, BacklogOf
from coverage_pipeline.requests.cover import DAYS_AN_OWNER, Cover, CoverProblem, cover
from coverage_pipeline.requests.demands import Demand
from coverage_pipeline.requests.offers import Offers
from coverage_pipeline.requests.places import Places
from coverage_pipeline.sensors.downloads import Download, download_of
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import write_parquet

BACKLOG_COLUMNS = [*SCENE_COLUMNS, "item_ids", "item_href", "collection", "provider"]
"""Columns of the scenes file that a backlog needs."""
_GIGABYTE = 1e9


@dataclass(frozen=True)
class Backlog:
    """Scenes worth getting, and what they close of what is wanted."""

    table: pa.Table
    """``BACKLOG_SCHEMA``: the chosen scenes by rank, then the other candidates by sensor, month and key."""
    days_wanted: int
    """Days of targets, or cells, that are missing and that downloading could add."""
    days_closed: int

    @property
    def chosen(self) -> pa.Table:
        """The rows of the chosen scenes."""
        return self.table.filter(self.table["rank"].is_valid())

    @property
    def bytes_chosen(self) -> int:
        """Bytes of the chosen scenes."""
        return int(pc.sum(self.chosen["bytes"]).as_py() or 0)

    @property
    def bytes_candidates(self) -> int:
        """Bytes of every scene that overlaps something with a deficit."""
        return int(pc.sum(self.table["bytes"]).as_py() or 0)


def read_backlog_files(sensor: CoverageSensor, month: Month, store: Store) -> PartitionFiles:
    """What a backlog needs of a partition; raises as ``read_partition_files`` does."""
    return read_partition_files(sensor, month, store, BACKLOG_COLUMNS)


def make_backlog(
    parts: Sequence[PartitionFiles],
    demands: Sequence[Demand],
    places: Places,
    *,
    cloud_lt: float,
    downloads: Mapping[str, Download] | None = None,
) -> Backlog:
    """The scenes of one month worth getting for all of ``demands``, of the sensors of ``parts``.

    ``cloud_lt`` is in percent. Where a sensor's part is missing, nothing of it is offered. The same scenes in another order give the same
    backlog.
    """
    weight = places.weight
    months = {part.month for part in parts}
    if len(months) > 1:
        raise ValueError("a backlog is made month by month")
    listed, offers = [], []
    for part in parts:
        own = [demand for demand in demands if part.sensor.key in demand.sensors]
        lacking = np.logical_or.reduce([demand.deficit > 0 for demand in own]) if own else np.zeros(len(weight), bool)
        days = np.bitwise_or.reduce([demand.days for demand in own]) if own else np.zeros(len(weight), np.uint32)
        facts, size = _scene_facts(part, downloads)
        offer = places.offers(part, lacking, days, size, _rank(part.scenes["scene_key"]), cloud_lt)
        listed.append(_rows(part, facts, size, offer))
        offers.append(offer)
    ids = places.names
    names = None if ids is None else np.array(ids, dtype=object)
    if not parts:
        return Backlog(BACKLOG_SCHEMA.empty_table(), 0, 0)
    table = pa.concat_tables(listed)
    order = pc.sort_indices(table, [("sensor", "ascending"), ("scene_key", "ascending")])
    table = table.take(order)
    # A scene's number is its place by sensor and key, whatever the input's order was.
    number = np.empty(len(order), np.int64)
    number[order.to_numpy()] = np.arange(len(order))
    problem, owners = _problem(parts, offers, listed, number, table, demands, weight)
    return _with_choice(table, problem, cover(problem), owners, demands, names)


def _rank(keys: pa.ChunkedArray) -> NDArray[np.int64]:
    return pc.rank(keys, tiebreaker="dense").to_numpy().astype(np.int64) if len(keys) else np.empty(0, np.int64)


def _scene_facts(part: PartitionFiles, downloads: Mapping[str, Download] | None) -> tuple[list[Download], NDArray[np.float64]]:
    """How each scene is downloaded, and its bytes."""
    providers = part.scenes["provider"].to_pylist()
    by_provider = {provider: download_of(part.sensor.key, provider, downloads) for provider in set(providers)}
    facts = [by_provider[provider] for provider in providers]
    return facts, np.array([fact.scene_mb * 1e6 for fact in facts])


def _rows(part: PartitionFiles, facts: Sequence[Download], size: NDArray[np.float64], offers: Offers) -> pa.Table:
    """The candidates of one sensor, not chosen yet, in the order of ``offers.touching``."""
    rows = offers.touching
    scenes, matchup = part.scenes.take(pa.array(rows)), part.matchup.take(pa.array(rows))
    in_part = matchup["missing"].is_valid().combine_chunks()
    upgrade = held_in_older_version(part.scenes, part.holdings, scenes_of_holdings(part.holdings, part.matchup), part.sensor.family)
    geometry = pc.if_else(in_part, matchup["missing"].combine_chunks().cast(pa.binary()), scenes["geometry"].combine_chunks())
    empty = pa.array([[]] * len(rows), pa.list_(CLOSED))
    zero, nothing = pa.array(np.zeros(len(rows), np.int64)), pa.nulls(len(rows), pa.int32())
    columns = {
        "rank": nothing,
        "offer": nothing,
        "sensor": pa.array([part.sensor.key] * len(rows), pa.string()),
        "month": pa.array([part.month.key] * len(rows), pa.string()),
        **{name: scenes[name] for name in ("scene_key", "item_ids", "item_href", "collection", "provider", "pass_time", "cloud_cover")},
        "in_part": in_part,
        "upgrade": pa.array(upgrade[rows], pa.bool_()),
        "bytes": pa.array(np.round(size[rows]).astype(np.int64)),
        "bytes_stated": pa.array(np.zeros(len(rows), bool)),
        "login": pa.array([facts[row].login for row in rows], pa.string()),
        "closes": empty,
        "days_closed": zero,
        "weight_closed": pa.array(np.zeros(len(rows))),
        "value": pa.nulls(len(rows), pa.float64()),
        "touches": pa.array(offers.touched),
        "geometry": geometry,
    }
    return pa.table(columns).cast(BACKLOG_SCHEMA)


def _problem(
    parts: Sequence[PartitionFiles],
    offers: Sequence[Offers],
    listed: Sequence[pa.Table],
    number: NDArray[np.int64],
    table: pa.Table,
    demands: Sequence[Demand],
    weight: NDArray[np.float64],
) -> tuple[CoverProblem, NDArray[np.int64]]:
    """The cover problem, and for each of its owners the demand and the place: ``demand · places + place``."""
    places = len(weight)
    closable = [demand.closable for demand in demands]
    wanting = [np.flatnonzero(days > 0) for days in closable]
    owners = np.concatenate([np.empty(0, np.int64), *(k * places + rows for k, rows in enumerate(wanting))]).astype(np.int64)
    wanted = np.concatenate([np.empty(0, np.int64), *(d.deficit[rows] for d, rows in zip(demands, wanting, strict=True))])
    numbers = []
    begin = 0
    for part, offer, rows in zip(parts, offers, listed, strict=True):
        number_of_row = np.full(part.scenes.num_rows, -1, np.int32)
        number_of_row[offer.touching] = number[begin : begin + rows.num_rows]
        begin += rows.num_rows
        numbers.append(number_of_row)
    closed = [
        [
            _elements(offer, k * places, demand, closable[k], owners) if part.sensor.key in demand.sensors else None
            for k, demand in enumerate(demands)
        ]
        for part, offer in zip(parts, offers, strict=True)
    ]
    single = all(len(offer.scenes) == len(offer.target) for offer in offers)
    bundles = (_single_scenes if single else _sets_of_scenes)(offers, numbers, closed)
    datatakes = pc.dictionary_encode(table["pass_time"]).combine_chunks().indices.to_numpy() if table.num_rows else np.empty(0)
    cloud = np.nan_to_num(table["cloud_cover"].to_numpy(zero_copy_only=False).astype(np.float64), nan=100.0)
    problem = CoverProblem(
        size=table["bytes"].to_numpy().astype(np.float64),
        cloud=cloud,
        datatake=datatakes.astype(np.int64),
        bundle_scenes=bundles.scenes,
        scene_offsets=bundles.scene_offsets,
        bundle_elements=bundles.elements,
        element_offsets=bundles.element_offsets,
        wanted=wanted.astype(np.int64),
        weight=weight[owners % places] if places else np.empty(0),
    )
    return problem, owners


@dataclass(frozen=True)
class _Bundles:
    """Bundles of a ``CoverProblem``, ordered by their scenes' numbers."""

    scenes: NDArray[np.int64]
    scene_offsets: NDArray[np.int64]
    elements: NDArray[Any]
    element_offsets: NDArray[np.int64]


_Closed = Sequence[Sequence[tuple[NDArray[np.int64], NDArray[Any]] | None]]
"""By part and demand: the offers that close something of it, and the element that each closes."""


def _elements(
    offer: Offers, first: int, demand: Demand, closable: NDArray[np.int64], owners: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    wanted = np.flatnonzero(((demand.days[offer.target] & day_bit(offer.day)) != 0) & (closable[offer.target] > 0))
    kind = np.int32 if len(owners) * DAYS_AN_OWNER < np.iinfo(np.int32).max else np.int64
    number = np.zeros(len(demand.deficit), kind)  # a look-up is some ten times as fast as a search in the owners
    own = (owners >= first) & (owners < first + len(number))
    number[owners[own] - first] = np.flatnonzero(own)
    return wanted, number[offer.target[wanted]] * kind(DAYS_AN_OWNER) + offer.day[wanted].astype(kind)


def _single_scenes(offers: Sequence[Offers], numbers: Sequence[NDArray[np.int32]], closed: _Closed) -> _Bundles:
    """Each offer is one scene: a bundle is a scene with all that it closes. Of cells there may be tens of millions of offers."""
    scenes, elements = [], []
    for offer, number, by_demand in zip(offers, numbers, closed, strict=True):
        for one in by_demand:
            if one is not None:
                scenes.append(number[offer.scenes[one[0]]])
                elements.append(one[1])
    scene = np.concatenate([np.empty(0, np.int32), *scenes])
    element = np.concatenate(elements) if elements else np.empty(0, np.int64)
    order = np.argsort(scene, kind="stable")
    scene, element = scene[order], element[order]
    begins = np.flatnonzero(np.diff(scene, prepend=-1))
    offsets = np.append(begins, len(scene)).astype(np.int64)
    return _Bundles(scene[begins].astype(np.int64), np.arange(len(begins) + 1), element, offsets)


def _sets_of_scenes(offers: Sequence[Offers], numbers: Sequence[NDArray[np.int32]], closed: _Closed) -> _Bundles:
    """Offers of several scenes; those of the same scenes are one bundle."""
    widest = max((int(np.diff(offer.offsets).max(initial=1)) for offer in offers), default=1)
    sets, of_offer, elements = [np.empty((0, widest), np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    made = 0
    for offer, number, by_demand in zip(offers, numbers, closed, strict=True):
        lengths = np.diff(offer.offsets)
        padded = np.full((len(lengths), widest), -1, np.int64)
        row = np.repeat(np.arange(len(lengths)), lengths)
        padded[row, np.arange(len(row)) - np.repeat(offer.offsets[:-1], lengths)] = number[offer.scenes]
        padded.sort(axis=1)
        sets.append(padded)
        for one in by_demand:
            if one is not None:
                of_offer.append(made + one[0])
                elements.append(one[1].astype(np.int64))
        made += len(lengths)
    unique, bundle = np.unique(np.concatenate(sets), axis=0, return_inverse=True)
    pairs = np.unique(np.column_stack([bundle.reshape(-1)[np.concatenate(of_offer)], np.concatenate(elements)]), axis=0)
    offsets = np.concatenate([[0], np.cumsum((unique >= 0).sum(axis=1))]).astype(np.int64)
    begins = np.searchsorted(pairs[:, 0], np.arange(len(unique) + 1)).astype(np.int64)
    return _Bundles(unique[unique >= 0], offsets, np.ascontiguousarray(pairs[:, 1]), begins)


def _with_choice(
    table: pa.Table,
    problem: CoverProblem,
    chosen: Cover,
    owners: NDArray[np.int64],
    demands: Sequence[Demand],
    names: NDArray[np.object_] | None,
) -> Backlog:
    """The table with ranks and with what each chosen scene closes."""
    scenes = np.flatnonzero(chosen.scene_step >= 0)
    step = chosen.scene_step[scenes]
    order = np.lexsort((scenes, step))
    scenes, step = scenes[order], step[order]
    # Pairs of a scene and an element that it helps to close.
    first, last = problem.scene_offsets[chosen.element_bundle], problem.scene_offsets[chosen.element_bundle + 1]
    count = last - first
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    helper = problem.bundle_scenes[np.repeat(first, count) + within]
    element = np.repeat(chosen.element, count)
    place = np.full(table.num_rows, -1, np.int64)
    place[scenes] = np.arange(len(scenes))
    order = np.lexsort((element, place[helper]))
    helper, element = place[helper][order], element[order]
    owner, day = element // DAYS_AN_OWNER, element % DAYS_AN_OWNER
    days = np.bincount(helper, minlength=len(scenes))
    closed_weight = np.bincount(helper, problem.weight[owner], minlength=len(scenes))
    kept = table.take(pa.array(scenes))
    if names is not None:
        which, at = owners[owner] // len(names), owners[owner] % len(names)
        labels = np.array([demand.of for demand in demands], dtype=object)
        values = pa.StructArray.from_arrays(
            [pa.array(labels[which], pa.string()), pa.array(names[at], pa.string()), pa.array(day.astype(np.uint8))], fields=list(CLOSED)
        )
        offsets = np.concatenate([[0], np.cumsum(days)]).astype(np.int32)
        kept = _replaced(kept, "closes", pa.ListArray.from_arrays(pa.array(offsets), values))
    for name, values_of in {
        "rank": np.arange(1, len(scenes) + 1, dtype=np.int32),
        "offer": (step + 1).astype(np.int32),
        "days_closed": days.astype(np.int64),
        "weight_closed": closed_weight.astype(np.float64),
        "value": chosen.value[step] * _GIGABYTE,
    }.items():
        kept = _replaced(kept, name, pa.array(values_of))
    rest = np.setdiff1d(np.arange(table.num_rows), scenes)
    closable = sum(int(demand.closable.sum()) for demand in demands)
    return Backlog(pa.concat_tables([kept.cast(BACKLOG_SCHEMA), table.take(pa.array(rest))]), closable, len(chosen.element))


def _replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def merged(backlogs: Sequence[Backlog]) -> Backlog:
    """Backlogs of several months as one: offers by value, ranked anew."""
    tables = [backlog.table for backlog in backlogs]
    if not tables:
        return Backlog(BACKLOG_SCHEMA.empty_table(), 0, 0)
    together = pa.concat_tables(
        [table.append_column("part", pa.array(np.full(table.num_rows, k, np.int32))) for k, table in enumerate(tables)]
    )
    chosen = together["rank"].is_valid()
    ranked, rest = together.filter(chosen), together.filter(pc.invert(chosen))
    ranked = ranked.sort_by([("value", "descending"), ("part", "ascending"), ("rank", "ascending")])
    key = ranked["part"].to_numpy().astype(np.int64) << 32 | ranked["offer"].to_numpy().astype(np.int64)
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    offer = np.argsort(np.argsort(first))[inverse] + 1
    ranked = ranked.take(pa.array(np.lexsort((ranked["rank"].to_numpy(), offer))))
    ranked = _replaced(ranked, "offer", pa.array(np.sort(offer).astype(np.int32)))
    ranked = _replaced(ranked, "rank", pa.array(np.arange(1, ranked.num_rows + 1, dtype=np.int32)))
    table = pa.concat_tables([ranked.drop_columns("part").cast(BACKLOG_SCHEMA), rest.drop_columns("part")])
    return Backlog(table, sum(b.days_wanted for b in backlogs), sum(b.days_closed for b in backlogs))


def within_budget(backlog: Backlog, *, max_gb: float | None = None, max_scenes: int | None = None) -> pa.Table:
    """The chosen scenes, by rank, of the offers that a budget holds: an offer that does not fit is left out whole, and the next is tried.

    ``max_gb`` is in 10⁹ bytes.
    """
    chosen = backlog.chosen
    offer, size = chosen["offer"].to_numpy(), chosen["bytes"].to_numpy()
    bytes_left = np.inf if max_gb is None else max_gb * _GIGABYTE
    scenes_left = len(offer) if max_scenes is None else max_scenes
    keep = np.zeros(len(offer), bool)
    for begin, end in zip(*_runs(offer), strict=True):
        wanted = int(size[begin:end].sum())
        if wanted <= bytes_left and end - begin <= scenes_left:
            keep[begin:end] = True
            bytes_left, scenes_left = bytes_left - wanted, scenes_left - (end - begin)
    return chosen.filter(pa.array(keep))


def _runs(values: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Begin and end of each run of equal values."""
    begins = np.flatnonzero(np.diff(values, prepend=values[0] - 1)) if len(values) else np.empty(0, np.int64)
    return begins, np.append(begins[1:], len(values)) if len(values) else begins


def write_no_backlog(part: PartitionFiles, store: Store, note: str) -> BacklogMetadata:
    """Write a partition's backlog without rows, and why nothing was chosen."""
    return _written(part, Backlog(BACKLOG_SCHEMA.empty_table(), 0, 0), store, places="cells", targets_digest="", note=note)


def write_backlog(part: PartitionFiles, demand: Demand, places: Places, store: Store, *, targets_digest: str, cloud_lt: float,
                  downloads: Mapping[str, Download] | None = None) -> BacklogMetadata:  # fmt: skip
    """Make one partition's backlog and write it; returns what the file says of itself."""
    backlog = make_backlog([part], [demand], places, cloud_lt=cloud_lt, downloads=downloads)
    of: BacklogOf = "cells" if places.names is None else "targets"
    return _written(part, backlog, store, places=of, targets_digest=targets_digest)


def _written(
    part: PartitionFiles, backlog: Backlog, store: Store, *, places: BacklogOf, targets_digest: str, note: str = ""
) -> BacklogMetadata:
    metadata = BacklogMetadata(
        sensor=part.sensor.key,
        month=part.month.key,
        run=uuid.uuid4().hex,
        places=places,
        note=note,
        targets_digest=targets_digest,
        scan_run=part.scan.run,
        holdings_run=part.extract.run,
        matchup_run=part.match.run,
        scan_status=part.scan.status,
        holdings_status=part.extract.status,
        candidates=backlog.table.num_rows,
        chosen=backlog.chosen.num_rows,
        bytes_chosen=backlog.bytes_chosen,
        bytes_candidates=backlog.bytes_candidates,
        days_wanted=backlog.days_wanted,
        days_closed=backlog.days_closed,
    )
    write_parquet(store.backlog(part.sensor.key, part.month), as_geoparquet(backlog.table), metadata)
    return metadata
