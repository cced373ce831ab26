"""Install a release set into a cluster, and look after it there.

Offers the plan of an apply and its execution (`plan`, `steps`, `apply`), `destroy`, the checks
before (`preflight`), what a cluster has otherwise than a set (`divergence`, `cluster_diff`), and
the audit of the images that run (`audit`). It talks to the API server through `kubernetes.cluster`
and installs through Helmfile.

Must not know how a set is rendered, or how a command line prints.
"""
