"""Settings of requests: where they are kept, and which providers take orders by STAPI."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from coverage_pipeline.redaction import has_login
from coverage_pipeline.storage.section import Section


class RequestsSettings(Section):
    """``[requests]``: who asked for what."""

    url: SecretStr | None = None
    """SQLAlchemy address of the database: ``sqlite:////folder/requests.sqlite`` or ``postgresql://user:password@host:5432/name``. By
    default SQLite beside the data."""
    most_cell_scenes: Annotated[int, Field(ge=0)] = 50_000
    """Without targets, scenes of a month beyond which a build chooses none for cells: a month of Sentinel-2 over the globe takes minutes.
    ``coverage-planner backlog`` chooses for cells whatever their number."""


class TaskingSettings(Section):
    """``[tasking."stapi.example.org"]``: a provider that takes orders by STAPI."""

    endpoint: str
    """Root of its API, http or https."""
    products: dict[str, str] = Field(default_factory=dict)
    """Product id by sensor key; the key itself where none is given."""
    token_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Name of the environment variable that holds the token; it is sent to the endpoint's host alone."""

    @field_validator("endpoint")
    @classmethod
    def _address(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be the http(s) address of the API's root")
        if has_login(endpoint) or parts.query:
            raise ValueError("credentials do not belong in an address; name the environment variable of the token in token_env")
        return endpoint.rstrip("/")
