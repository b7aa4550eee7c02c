"""Ways of differentiating a solve other than through its operations."""
