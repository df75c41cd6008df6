"""Tests beyond the suite: of tasks that were not merged, and on corrupted images."""
