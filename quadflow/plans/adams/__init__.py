"""Adams methods of variable order."""
