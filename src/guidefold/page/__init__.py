"""A page to look at: no guidance, CFG and an adapter side by side, from the same noise."""
