"""Error against cost: work-precision, equal error, timing, memory."""
