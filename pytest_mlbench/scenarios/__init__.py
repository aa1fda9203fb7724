"""Scenarios: how calls are arranged in time; one file each, in the entry-point group `mlbench.scenarios`."""
