"""Runs components in order: artifacts, cache, executions, lineage."""
