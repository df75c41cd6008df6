"""Methods that serve each task a mask of one shared vector."""
