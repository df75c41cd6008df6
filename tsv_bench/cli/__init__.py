"""The commands, one file each. Only this package knows Hydra.

A command's file checks what needs no tensor, and then imports its namesake in work/, which does the
rest. So help and mistakes are answered in a second: torch takes two. What its checks import must
not import torch either; tests/commands/test_start.py asks.
"""
