"""Random single mutations of the code, each tried against the tests meant for it: ``make mutate``."""
