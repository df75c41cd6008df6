"""What a merge tells of itself: a model card, and what becomes of which layers."""
