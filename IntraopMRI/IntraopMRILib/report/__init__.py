"""The session record to HTML and JSON."""
