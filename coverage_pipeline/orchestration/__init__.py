"""Dagster only: partitions, resources, assets, checks and automation around the domain's functions."""
