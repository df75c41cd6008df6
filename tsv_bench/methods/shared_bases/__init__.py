"""Methods that merge what tasks have in bases of directions that all of them share."""
