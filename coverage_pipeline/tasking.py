"""The specification's names for requests. For users: nothing inside the package imports this module."""

from coverage_pipeline.requests.flags import flag_for_request, request_kind, submit_request, taskable_mask

__all__ = ["flag_for_request", "request_kind", "submit_request", "taskable_mask"]
