"""Kubernetes objects, and the clusters that have them.

Offers objects as text and as bodies (`objects`, `accessors`), pods and their containers
(`workload`), readiness and its explanation (`readiness`, `diagnosis`), Helm's release records
(`helm_release`), the difference of two versions of an object (`diff`) and an API server's client
(`cluster`). Only `cluster` talks to the network.

Must not know Kubeflow, images, a workspace or a release set.
"""
