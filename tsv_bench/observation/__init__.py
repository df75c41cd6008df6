"""Observation: statistics of a few images or texts through the networks of tasks."""
