"""SideNets, the Bi-Anchor interpolant and the published checkpoints."""
