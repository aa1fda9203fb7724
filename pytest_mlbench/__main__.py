"""`python -m pytest_mlbench` is the command `mlbench`."""

import sys

from pytest_mlbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
