"""Studies: each writes a page that can be read offline and its figures as JSON."""
