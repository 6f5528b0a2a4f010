"""Runs: records that repeat, found, held and encoded by the thousand."""
