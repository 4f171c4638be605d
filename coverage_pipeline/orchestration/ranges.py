"""How an asset's body goes through the partitions of its run: what is recorded when, what a retry does, and what a failure stops.

A run holds one partition, or a range of months of one sensor (Dagster's ranged backfills). In a range each partition is recorded as
materialised as soon as it is written. A partition that fails is named at the end, and the others are made all the same, here and in
the assets that follow. A retry makes only the partitions that are not recorded yet.

Dagster itself records a range at the end of the step, all of it or nothing. So the events are made here, and the step's own output
carries the mark by which Dagster makes none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.partitions.utils import get_tags_from_multi_partition_key
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as RECORDED_ALREADY
from dagster._core.storage.tags import ASSET_RESUME_RETRY_TAG, RESUME_RETRY_TAG

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.orchestration.partitions import SensorMonth, sensor_months_of
from coverage_pipeline.sensors.registry import CoverageSensor

AssetEvents = Iterator[dg.AssetMaterialization | dg.AssetObservation | dg.MaterializeResult[None] | dg.Output[None]]
Step = Callable[[SensorMonth], Mapping[str, Any]]
"""What an asset does for one partition; returns what a person wants to know of it."""

SecondPass = Callable[[list[SensorMonth]], Iterable[tuple[SensorMonth, Mapping[str, Any]]]]
"""What is settled over all partitions of a range; gives those that it changed, with what a person wants to know of them."""

_FAILED = "failed"
"""Metadata of the observation that stands in the run's log for a partition that could not be made."""

lenient_executor = dg.in_process_executor.configured(
    {"step_dependency_config": {"require_upstream_step_success": False}}, name="in_process_lenient"
)
"""One process for all steps of a run, for a process costs more than a partition's work. An asset runs once the assets before it have
given their output, though their step then failed for some of the partitions."""


@contextmanager
def failing_in_words() -> Iterator[None]:
    """Turn a ``PlannerError`` into a failure that says its sentence and is retried only where waiting may mend it."""
    try:
        yield
    except PlannerError as error:
        raise dg.Failure(description=str(error), allow_retries=error.may_pass) from error


def materialised(
    context: dg.AssetExecutionContext, sensors: dict[str, CoverageSensor], step: Step, *, second_pass: SecondPass | None = None
) -> AssetEvents:
    """The events of an asset in this run, each as soon as its partition is written; raises ``dg.Failure`` for those that failed.

    ``second_pass`` settles what depends on neighbouring months once the whole range is written; what it changed is recorded again.
    """
    with failing_in_words():
        parts = list(sensor_months_of(context, sensors))
    if len(parts) > 1:
        yield from _range(context, parts, step, second_pass)
        return
    for part in parts:
        with failing_in_words():
            context.add_asset_metadata(_shown(step(part)), partition_key=part.key)
    yield dg.MaterializeResult()


def _range(context: dg.AssetExecutionContext, parts: list[SensorMonth], step: Step, second_pass: SecondPass | None) -> AssetEvents:
    asset, name = context.asset_key, context.asset_key.to_user_string()
    log = _RunLog.of(context)
    recorded = set(log.recorded[asset])
    failed: dict[str, Exception] = {}
    for part in parts:
        if part.key in recorded:
            continue
        if lacking := log.lacking(part.key, context.assets_def.asset_deps[asset]):
            context.log.warning(f"{part.key} is left out: {', '.join(lacking)} could not be made for it in this run")
            continue
        try:
            report = step(part)
        except Exception as error:
            failed[part.key] = error
            unforeseen = None if isinstance(error, PlannerError) else error
            context.log.error(f"{part.key}: {_sentence(error)}; the other partitions go on", exc_info=unforeseen)
            continue
        yield _materialisation(context, part.key, report)
        recorded.add(part.key)
    if second_pass is not None:
        with failing_in_words():
            for part, report in second_pass([part for part in parts if part.key in recorded]):
                yield _materialisation(context, part.key, report)
    failures = {key: _sentence(error) for key, error in failed.items()}
    if any(_may_pass(error) for error in failed.values()) and _attempts_are_left(context):
        raise _failure(failures, allow_retries=True)
    for key, text in failures.items():
        yield dg.AssetObservation(asset, partition=key, metadata={_FAILED: dg.MetadataValue.text(text)}, tags=_dimensions(key))
    if failed and not recorded:  # the assets that follow have nothing to go on with
        raise _failure(failures)
    yield dg.Output(None, metadata={RECORDED_ALREADY: True})
    if not _others_go_on_after_a_failure(context):
        if log.planned & context.job_def.asset_layer.get(asset).child_keys:
            return  # to fail now would stop the assets that follow: the last of them fails for all
        failures = log.failures() | {f"{key} ({name})": text for key, text in failures.items()}
    if failures:
        raise _failure(failures)


@dataclass(frozen=True)
class _RunLog:
    """What a run has done so far, from its event log. It is the same for a retry in another process, and for a run that resumes one
    that failed: then the log of that run is part of it.
    """

    planned: frozenset[dg.AssetKey]
    """Assets that this run makes."""
    recorded: Mapping[dg.AssetKey, set[str]]
    """Partitions recorded as materialised, by asset."""
    failed: Mapping[tuple[dg.AssetKey, str], str]
    """Why a partition of an asset could not be made."""

    @classmethod
    def of(cls, context: dg.AssetExecutionContext) -> _RunLog:
        """The log of the context's run."""
        planned: set[dg.AssetKey] = set()
        recorded: defaultdict[dg.AssetKey, set[str]] = defaultdict(set)
        failed: dict[tuple[dg.AssetKey, str], str] = {}
        for run in _resumed_runs(context):
            for entry in context.instance.all_logs(run.run_id, of_type=_LOGGED):
                event = entry.dagster_event
                if event is None or event.asset_key is None:
                    continue
                if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
                    planned |= {event.asset_key} if run.run_id == context.run.run_id else set()
                elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.partition is not None:
                    recorded[event.asset_key].add(event.partition)
                elif event.event_type == dg.DagsterEventType.ASSET_OBSERVATION and event.partition is not None:
                    text = event.asset_observation_data.asset_observation.metadata.get(_FAILED)
                    if text is not None and run.run_id == context.run.run_id:
                        failed[event.asset_key, event.partition] = str(text.value)
        return cls(frozenset(planned), recorded, failed)

    def lacking(self, partition: str, assets: Iterable[dg.AssetKey]) -> list[str]:
        """Which of these assets this run makes and has not recorded for the partition."""
        return sorted(a.to_user_string() for a in assets if a in self.planned and partition not in self.recorded[a])

    def failures(self) -> dict[str, str]:
        """Why partitions could not be made, by their names with the asset's."""
        return {f"{key} ({asset.to_user_string()})": text for (asset, key), text in self.failed.items() if key not in self.recorded[asset]}


_LOGGED = {
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
}


def _resumed_runs(context: dg.AssetExecutionContext) -> Iterator[dg.DagsterRun]:
    """The run, and the failed ones that it resumes: "re-execute from failure", and Dagster's own retries of a run that broke off."""
    run: dg.DagsterRun | None = context.run
    while run is not None:
        yield run
        resumes = {run.tags.get(tag) for tag in (RESUME_RETRY_TAG, ASSET_RESUME_RETRY_TAG)} & {"true"}
        run = context.instance.get_run_by_id(run.parent_run_id) if resumes and run.parent_run_id else None


def _materialisation(context: dg.AssetExecutionContext, partition: str, report: Mapping[str, Any]) -> dg.AssetMaterialization:
    tags = {**_dimensions(partition), DATA_VERSION_TAG: f"{context.run.run_id}-{context.retry_number}"}
    return dg.AssetMaterialization(context.asset_key, partition=partition, metadata=_shown(report), tags=tags)


def _dimensions(partition: str) -> dict[str, str]:
    """Tags by which Dagster finds the events of one month or one sensor."""
    return dict(get_tags_from_multi_partition_key(partition)) if isinstance(partition, dg.MultiPartitionKey) else {}


def _shown(report: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as Dagster takes it; nothing for what is empty."""
    return {name: value for name, value in report.items() if value not in (None, "", {}, [])}


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, PlannerError) else f"unforeseen {type(error).__name__}: {error}"


def _may_pass(error: Exception) -> bool:
    return error.may_pass if isinstance(error, PlannerError) else True


def _failure(failures: Mapping[str, str], *, allow_retries: bool = False) -> dg.Failure:
    return dg.Failure(
        description="; ".join(f"{key}: {text}" for key, text in failures.items()), metadata=dict(failures), allow_retries=allow_retries
    )


def _attempts_are_left(context: dg.AssetExecutionContext) -> bool:
    policy = context.op_def.retry_policy
    step = context.op_execution_context.get_step_execution_context()
    return policy is not None and not step.retry_mode.disabled and context.retry_number < policy.max_retries


def _others_go_on_after_a_failure(context: dg.AssetExecutionContext) -> bool:
    """Whether the executor is as lenient as ``lenient_executor``; the one of ``execute_in_process`` and ``dg.materialize`` never is."""
    return not context.op_execution_context.get_step_execution_context().step_dependency_config.require_upstream_step_success
