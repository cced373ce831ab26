"""Know images and registries by their specifications: references, manifests, attachments.

`registry` talks to registries; `signing` makes and checks signatures by key. The modules here are
pure values, and touch neither files nor the network. Nothing in this package knows a workspace,
Kubeflow or a cluster.
"""
