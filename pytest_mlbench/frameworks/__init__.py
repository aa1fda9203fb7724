"""Frameworks: one file per framework, found through the entry-point group `mlbench.frameworks`."""
