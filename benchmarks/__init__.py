"""Measurements of the embedded server; see README.md here."""
