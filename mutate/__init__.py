"""Random single mutations of the code, each tried against the tests for it: ``make mutate``."""
