"""Figures, tables, marked blocks of pages and the demo."""
