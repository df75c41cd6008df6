"""From a command line to the objects that the commands work with."""
