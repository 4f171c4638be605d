"""Run by alembic: upgrades on the connection that ``store`` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table="request_schema")
with context.begin_transaction():
    context.run_migrations()
