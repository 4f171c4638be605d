"""An asset of the graph before it is bound to a configuration.

Partitions, backfill policy, automation and retries follow from the settings, of which one process may hold several (the demo, the tests).
So a module of ``assets`` declares each asset once, at module level, with everything that does not depend on them; ``definitions`` binds
them. What belongs here: the decorator and the binding. What does not: any body of an asset.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import dagster as dg

from coverage_pipeline.orchestration.automation import Automation

GROUP = "coverage"
OWNERS = ("team:planning",)


@dataclass(frozen=True)
class Binding:
    """What all assets of one configuration share."""

    sensor_months: dg.MultiPartitionsDefinition
    backfill_policy: dg.BackfillPolicy | None
    automation: Automation
    retry_policy: dg.RetryPolicy
    more_deps: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Sources that a configuration adds to an asset, by name."""


@dataclass(frozen=True)
class PlannedAsset:
    """One asset, month × sensor; mappings between its partitions and those of its sources are identities."""

    body: Callable[..., Any]
    deps: tuple[PlannedAsset, ...]
    kinds: frozenset[str]
    code_version: str
    metadata: Mapping[str, Any]
    tags: Mapping[str, str]
    pool: str | None = None

    @property
    def name(self) -> str:
        """Its key in Dagster."""
        return self.body.__name__

    def bound(self, binding: Binding) -> dg.AssetsDefinition:
        """The asset of one configuration."""
        deps = [*(dep.name for dep in self.deps), *binding.more_deps.get(self.name, ())]
        automation = binding.automation.downstream if deps else binding.automation.root
        bound: dg.AssetsDefinition = dg.asset(  # type: ignore[call-overload]  # dg.Nothing is no DagsterType to the stubs
            name=self.name,
            description=inspect.getdoc(self.body),
            deps=deps,
            kinds=set(self.kinds),
            code_version=self.code_version,
            metadata=dict(self.metadata),
            tags=dict(self.tags),
            owners=list(OWNERS),
            pool=self.pool,
            group_name=GROUP,
            partitions_def=binding.sensor_months,
            backfill_policy=binding.backfill_policy,
            automation_condition=automation,
            retry_policy=binding.retry_policy,
            dagster_type=dg.Nothing,  # the results lie in files; no I/O manager is asked
        )(self.body)
        return bound


def planned_asset(
    *,
    deps: Sequence[PlannedAsset] = (),
    kind: str,
    source: str,
    size: str,
    code_version: str = "1",
    layer: str,
    pool: str | None = None,
) -> Callable[[Callable[..., Any]], PlannedAsset]:
    """Declare an asset; the docstring of its body is the description that people read in the UI.

    ``source`` says where the data come from, ``size`` how large a partition is (measured, with its sensor), ``layer`` which part of the
    planner's question it answers. Count ``code_version`` up when the same input gives another result.
    """

    def declare(body: Callable[..., Any]) -> PlannedAsset:
        metadata = {"source": source, "expected_size": size}
        return PlannedAsset(body, tuple(deps), frozenset({kind}), code_version, metadata, {"layer": layer}, pool)

    return declare
