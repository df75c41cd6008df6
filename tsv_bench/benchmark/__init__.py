"""A method on a suite: from checkpoints to one Run."""
