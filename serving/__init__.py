"""A servable answers: the embedded server, its two doors, and the client of every target."""
