"""kfdeploy: Kubeflow, delivered by Helmfile, where there is no internet."""

__version__ = "0.1.0"
