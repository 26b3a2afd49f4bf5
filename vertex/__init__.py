"""A servable on Vertex AI: stock TF Serving in a custom container."""
