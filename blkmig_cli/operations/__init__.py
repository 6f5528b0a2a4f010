"""The operations of blkmig, one module or folder for each, without a command line."""
