"""Kubeflow's manifests: fetching them whole, the components in them, building each."""
