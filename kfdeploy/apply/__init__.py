"""Install a release set into a cluster, and look after it there.

Offers the plan and its execution (`apply`), `destroy`, the preflight, the comparison of a cluster
with a set, and the audit of images that run. It talks to the API server through
`kubernetes.cluster` and installs through Helmfile. It must not know how a set is rendered.
"""
