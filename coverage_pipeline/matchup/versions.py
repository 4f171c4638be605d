"""Which scene each holding belongs to, and whether a newer version of a held scene is listed, as far as the ids tell."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coverage_pipeline.holdings.rows import same_rows
from coverage_pipeline.scenes.scene_key import scene_identity
from coverage_pipeline.sensors.registry import SceneFamily


def scenes_of_holdings(holdings: pa.Table, matchup: pa.Table) -> NDArray[np.int64]:
    """For every row of the extract the row of its scene in the matchup, int64; -1 where it belongs to none.

    A row that repeats another's time and footprint has that row's scene. ``holdings`` has ``HOLDINGS_SCHEMA``, ``matchup`` the column
    ``holdings``.
    """
    owner = np.full(holdings.num_rows, -1, np.int64)
    names = pc.list_flatten(matchup["holdings"])
    if holdings.num_rows:
        row = pc.index_in(names, value_set=holdings["holding"].combine_chunks()).to_numpy(zero_copy_only=False)
        owner[row] = pc.list_parent_indices(matchup["holdings"]).to_numpy()
        owner = np.maximum(owner, owner[same_rows(holdings)])
    return owner


def held_in_older_version(scenes: pa.Table, holdings: pa.Table, owner: NDArray[np.int64], family: SceneFamily) -> NDArray[np.object_]:
    """For every scene True where all its holdings are older than the newest listed copy, False where one is as new.

    ``scenes`` has the column ``item_ids`` (newest first), ``holdings`` the column ``scene_id``; ``owner`` is ``scenes_of_holdings``. None
    where a scene has no holding, or the ids do not tell: many catalogues leave the processing time out of their ids.
    """
    result = np.full(scenes.num_rows, None, dtype=object)
    rows = np.flatnonzero(owner >= 0)
    ids = holdings["scene_id"].take(pa.array(rows)).to_pylist()
    listed = scenes["item_ids"].take(pa.array(owner[rows])).to_pylist()
    for scene, held, copies in zip(owner[rows], ids, listed, strict=True):
        older = is_older(family, held, copies[0]) if held and copies else None
        if result[scene] is None or older is False:  # one that is as new settles it
            result[scene] = older
    return result


def is_older(family: SceneFamily, held: str, listed: str) -> bool | None:
    """Whether product id ``held`` is of an older version than ``listed``, of the same scene; None where the ids do not tell.

    By processing time where both ids state it, else by build or tier where both state it and they differ (``SceneIdentity.rank``).
    """
    if held == listed:
        return False
    one, other = (scene_identity(family, item_id, {}).rank for item_id in (held, listed))
    if len(one) < 2 or len(other) < 2:
        return None
    if one[0] and other[0]:
        return one[0] < other[0]
    if one[1] and other[1] and one[1] != other[1]:
        return one[1] < other[1]
    return None
