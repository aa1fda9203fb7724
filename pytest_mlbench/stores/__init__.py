"""Stores: where records are kept. `runfile.py` is the file of one session."""
