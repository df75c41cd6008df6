"""Methods that merge entry by entry: sums, trims, signs and weights."""
