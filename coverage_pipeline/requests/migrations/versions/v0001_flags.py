"""The table that the first versions wrote, without states."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make it where it is not there; its rows stay where it is."""
    if sa.inspect(op.get_bind()).has_table("requests"):
        return
    names = ("created", "sensor", "kind", "window_start", "window_end", "geometry")
    op.create_table("requests", sa.Column("id", sa.Text, primary_key=True), *(sa.Column(name, sa.Text, nullable=False) for name in names))
