"""What can be told about a problem before it is solved in earnest."""
