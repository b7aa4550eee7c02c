"""Anybody's solver behind one interface, one adapter a library."""
