"""What runs next to the framework on the target: standard library and numpy only, Python >= 3.9.

This folder travels to the target as a zip under the package name `mlbench_agent`; it imports nothing of
the rest of pytest_mlbench, and uses relative imports so that both names work.
"""
