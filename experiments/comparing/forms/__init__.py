"""A report as tables, text, figures and a page."""
