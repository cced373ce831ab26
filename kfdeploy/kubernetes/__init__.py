"""Objects of Kubernetes, as values: keys, pod templates, readiness, what a Helm record holds.

Knows nothing of Kubeflow, of images or of a workspace.
"""
