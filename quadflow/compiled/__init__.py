"""Steps compiled by torch.compile."""
