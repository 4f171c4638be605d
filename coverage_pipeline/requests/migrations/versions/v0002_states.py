"""Who asked, what for, and an append-only history of states; requests of the first versions are ``requested``."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns and the table of states."""
    for column in (
        sa.Column("who", sa.Text, nullable=False, server_default=""),
        sa.Column("wanted_cloud", sa.Float),
        sa.Column("note", sa.Text, nullable=False, server_default=""),
        sa.Column("scenes", sa.Text, nullable=False, server_default="[]"),
        sa.Column("provider", sa.Text),
        sa.Column("order_number", sa.Text),
        sa.Column("version", sa.Integer, nullable=False, server_default="1"),
    ):
        op.add_column("requests", column)
    states = op.create_table(
        "request_states",
        sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("time", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False, server_default="") for name in ("detail", "who", "reason")),
        sa.Column("evidence", sa.Text, nullable=False, server_default="{}"),
    )
    requests = sa.table("requests", sa.column("id"), sa.column("created"))
    first = sa.select(requests.c.id, sa.literal(1), requests.c.created, sa.literal("requested"))
    op.execute(sa.insert(states).from_select(["request_id", "number", "time", "state"], first))
