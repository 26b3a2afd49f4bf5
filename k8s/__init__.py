"""A servable on Kubernetes: stock TF Serving by plain manifests."""
