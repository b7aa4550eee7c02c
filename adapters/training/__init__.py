"""Training of backbones and SideNets: the one loop, chains, random numbers, state, previews."""
