"""Reporters: one file per rendering of a run."""
