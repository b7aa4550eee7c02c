"""Images from files, and as files."""
