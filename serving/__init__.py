"""Exports a trained generator, checks and pushes it, and serves it."""
