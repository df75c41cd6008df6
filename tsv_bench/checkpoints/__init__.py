"""Checkpoints: one fine-tuned model for each task, and the sources that they come from."""
