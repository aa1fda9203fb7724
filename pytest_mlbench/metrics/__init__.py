"""Metrics: pure functions from what was measured to named quantities."""
