"""Upgrades of the database of requests, by alembic."""
