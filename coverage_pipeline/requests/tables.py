"""Tables of the requests. ``migrations`` brings a database to them."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()
REQUESTS = sa.Table(
    "requests",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),  # the first 16 hexadecimal digits of what is asked
    sa.Column("created", sa.Text, nullable=False),  # UTC, ISO 8601
    sa.Column("sensor", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),  # ingest or task
    sa.Column("window_start", sa.Text, nullable=False),  # first day, YYYY-MM-DD
    sa.Column("window_end", sa.Text, nullable=False),  # last day
    sa.Column("geometry", sa.Text, nullable=False),  # GeoJSON, EPSG:4326
    sa.Column("who", sa.Text, nullable=False, server_default=""),
    sa.Column("wanted_cloud", sa.Float),  # percent; a scene must be below it. null: clear by the settings
    sa.Column("note", sa.Text, nullable=False, server_default=""),
    sa.Column("scenes", sa.Text, nullable=False, server_default="[]"),  # JSON: keys of the scenes to ingest
    sa.Column("provider", sa.Text),  # host that it was ordered from
    sa.Column("order_number", sa.Text),  # the provider's
    sa.Column("version", sa.Integer, nullable=False, server_default="1"),  # counts changes: the optimistic lock
)
REQUEST_STATES = sa.Table(
    "request_states",
    METADATA,
    sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),  # from 1; the last one is the present state
    sa.Column("time", sa.Text, nullable=False),  # UTC, ISO 8601
    sa.Column("state", sa.Text, nullable=False),  # of states.STATES
    sa.Column("detail", sa.Text, nullable=False, server_default=""),  # the provider's own code
    sa.Column("who", sa.Text, nullable=False, server_default=""),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("evidence", sa.Text, nullable=False, server_default="{}"),  # JSON: scene key and holding, …
)
