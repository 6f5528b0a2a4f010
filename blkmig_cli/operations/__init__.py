"""One module or folder for each thing that blkmig does, without a command line."""
