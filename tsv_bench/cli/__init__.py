"""The commands, one file each. Only this package knows Hydra."""
