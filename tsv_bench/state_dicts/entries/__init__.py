"""What the entries of a checkpoint are, and which of them are the same in several checkpoints."""
