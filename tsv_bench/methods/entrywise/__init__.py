"""Methods that merge entry by entry."""
