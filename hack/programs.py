"""The outside programs that set-up (hack/setup.py) provides: what will do, and where to get it."""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True)
class Tool:
    """An outside program."""

    name: str
    minimum: Version
    version_args: tuple[str, ...] = ("--version",)
    banner: str = ""  # what stands before the version, for a name that other programs have too
    also_called: str = ""
    debian: str = ""  # the package that has it
    debian_service: str = ""  # the service that package starts, which we do not want
    package: str = ""  # the Go package it is built from
    module: str = (
        ""  # the folder in hack/tools/ whose go.mod pins that; the tool's name if left out
    )
    ldflags: str = ""  # {version} is the one in go.mod, {major} and {minor} are parts of it
    build_seconds: int = 0  # of two cores, in the order below: later ones share packages

    def __post_init__(self) -> None:
        object.__setattr__(self, "module", self.module or self.name)


def kubernetes(name: str, minimum: Version, *version_args: str, build_seconds: int) -> Tool:
    """A program of Kubernetes' own; hack/tools/k8s builds all of them."""
    # Unset, a server calls itself v0.0.0-master, which no chart's `kubeVersion` accepts.
    variables = {
        "gitVersion": "{version}",
        "gitMajor": "{major}",
        "gitMinor": "{minor}",
        "gitCommit": "",
        "gitTreeState": "clean",
    }
    return Tool(
        name,
        minimum,
        version_args=version_args or ("--version",),
        package=f"k8s.io/kubernetes/cmd/{name}",
        module="k8s",
        ldflags=" ".join(
            f"-X k8s.io/component-base/version.{key}={value}" for key, value in variables.items()
        ),
        build_seconds=build_seconds,
    )


ALL_TOOLS = (
    Tool("git", (2, 30), debian="git"),
    Tool(
        "kustomize",
        (5, 4),
        version_args=("version",),
        package="sigs.k8s.io/kustomize/kustomize/v5",
        build_seconds=35,
    ),
    # Debian's only: its Go module is not to be had from every proxy, and without a go.sum of it
    # there is nothing to build.
    Tool("skopeo", (1, 9), debian="skopeo"),
    Tool(
        "registry",
        (2, 8),
        banner=r"distribution\S* ",
        also_called="docker-registry",
        debian="docker-registry",
        debian_service="docker-registry",
        package="github.com/distribution/distribution/v3/cmd/registry",
        ldflags="-X github.com/distribution/distribution/v3/version.version={version}",
        build_seconds=60,
    ),
    Tool(
        "crane",
        (0, 0),
        version_args=("version",),
        package="github.com/google/go-containerregistry/cmd/crane",
        ldflags="-X github.com/google/go-containerregistry/cmd/crane/cmd.Version={version}",
        build_seconds=10,
    ),
    # What mirrors and layouts of ours are held against, in tests and benchmarks.
    Tool(
        "regctl",
        (0, 8),
        version_args=("version",),
        banner="VCSTag: +",
        package="github.com/regclient/regclient/cmd/regctl",
        module="regclient",
        build_seconds=10,
    ),
    Tool(
        "regsync",
        (0, 8),
        version_args=("version",),
        banner="VCSTag: +",
        package="github.com/regclient/regclient/cmd/regsync",
        module="regclient",
        build_seconds=5,
    ),
    Tool(
        "oras",
        (1, 2),
        version_args=("version",),
        banner="Version: +",
        package="oras.land/oras/cmd/oras",
        build_seconds=10,
    ),
    Tool(
        "helm",
        (3, 18),
        version_args=("version", "--short"),
        package="helm.sh/helm/v4/cmd/helm",
        ldflags="-X helm.sh/helm/v4/internal/version.version={version}",
        build_seconds=100,
    ),
    # Without these it calls itself 0.0.0-dev, which no `requiredVersion` accepts.
    Tool(
        "helmfile",
        (1, 1),
        package="github.com/helmfile/helmfile",
        ldflags="-X go.szostok.io/version.version={version}"
        " -X go.szostok.io/version.dirtyBuild=false",
        build_seconds=510,
    ),
    # The tests' cluster (tests/support/cluster.py). Debian's etcd 3.4 would need fallbacks of the
    # API server that no cluster of today uses; 3.5.13 has all that it asks for.
    Tool(
        "etcd",
        (3, 5, 13),
        banner="etcd Version: ",
        package="go.etcd.io/etcd/server/v3",
        build_seconds=50,
    ),
    # 1.36 is the first whose MutatingAdmissionPolicy is v1.
    kubernetes("kube-apiserver", (1, 36), build_seconds=610),
    kubernetes("kube-controller-manager", (1, 36), build_seconds=140),
    kubernetes("kube-scheduler", (1, 36), build_seconds=10),
    # `kubectl wait --for=create` came with 1.31.
    kubernetes("kubectl", (1, 31), "version", "--client", build_seconds=60),
)

# Built only when they are named, as few tests need them: a real operator as Kubeflow ships it, for
# tests and benchmarks of image content, the Helm that many sites still have, and Kyverno's command
# line, which takes minutes to build.
ON_REQUEST = (
    Tool(
        "training-operator",
        (0, 0),
        package="github.com/kubeflow/training-operator/cmd/training-operator.v1",
        build_seconds=60,
    ),
    # Unset, it tells charts that the cluster is a Kubernetes 1.20.
    Tool(
        "helm3",
        (3, 18),
        package="helm.sh/helm/v3/cmd/helm",
        ldflags="-X helm.sh/helm/v3/internal/version.version={version}"
        " -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1"
        " -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=36"
        " -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1"
        " -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=36",
        build_seconds=60,
    ),
    Tool(
        "kyverno",
        (1, 19),
        version_args=("version",),
        banner="Version: ",
        package="github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno",
        ldflags="-X github.com/kyverno/kyverno/pkg/version.BuildVersion={version}",
        build_seconds=400,
    ),
)
