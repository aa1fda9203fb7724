"""Devices: one file per kind of device, found through the entry-point group `mlbench.devices`."""
