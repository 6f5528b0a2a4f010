"""How fast blkmig is, beside its peers: ``make bench``."""
