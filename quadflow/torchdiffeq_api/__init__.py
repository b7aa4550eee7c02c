"""torchdiffeq's functions, names and options on this library's solve."""
