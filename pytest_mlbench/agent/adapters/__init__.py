"""The target half of each built-in framework: one adapter module each, by the contract in agent/api.py."""
