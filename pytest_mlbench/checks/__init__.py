"""Checks: pure decisions on declared expectations. Nothing here measures or renders."""
