"""A vision model becomes a servable: source, preprocessing, task, signatures, export, verify."""
