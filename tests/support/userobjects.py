"""What users of a Kubeflow have in it: objects that no set contains, and no upgrade may touch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tests.support.cluster import Cluster

TEAM: Final = "team-a"
Body = dict[str, Any]
_IMAGE: Final = "registry.test/users/work:1"


def profile(team: str = TEAM) -> Body:
    """A team's Profile, whose namespace, of the same name, the profile controller makes."""
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "Profile",
        "metadata": {"name": team},
        "spec": {
            "owner": {"kind": "User", "name": "ada@example.com"},
            "resourceQuotaSpec": {"hard": {"requests.nvidia.com/gpu": "8"}},
        },
    }


def objects(*versions: str, team: str = TEAM) -> list[Body]:
    """Objects in a team's namespace whose kinds each of these Kubeflow versions serves.

    ``objects("1.10.2")`` has a PyTorchJob, ``objects("26.03")`` a TrainJob, and
    ``objects("1.10.2", "26.03")`` neither.
    """
    found = [
        *_storage(),
        *_workbench(),
        *_pipelines(),
        _inference_service(),
        _experiment(),
        _spark_application(),
    ]
    only = {"1.10.2": _pytorch_job(), "26.03": _train_job()}
    if len(versions) == 1:
        found.append(only[versions[0]])
    for body in found:
        body["metadata"] |= {"namespace": team}
    return found


def put(cluster: Cluster, bodies: Sequence[Mapping[str, Any]], team: str = TEAM) -> None:
    """Create the Profile, if it is not there, wait for its namespace, and create the objects."""
    if cluster.kubectl("get", "profile", team, check=False).returncode:
        cluster.create(profile(team))
    wait = ("--for=create", "serviceaccount/default-editor", "-n", team, "--timeout=60s")
    cluster.kubectl("wait", *wait)
    cluster.create(*bodies)


def state(cluster: Cluster, bodies: Iterable[Mapping[str, Any]]) -> dict[str, Body]:
    """What must be the same before and after: KIND/NAME to uid, labels, annotations and spec.

    A key is missing where the object is gone, or its kind no longer served.
    """
    out: dict[str, Body] = {}
    for body in bodies:
        metadata = body["metadata"]
        group, _, version = body["apiVersion"].rpartition("/")
        kind = f"{body['kind']}.{version}.{group}" if group else body["kind"]
        place = ("-n", metadata["namespace"]) if "namespace" in metadata else ()
        done = cluster.kubectl(
            *("get", f"{kind}/{metadata['name']}", *place, "--ignore-not-found", "-o", "json"),
            check=False,
        )
        if done.returncode == 0 and done.stdout.strip():
            found = json.loads(done.stdout)
            kept = {name: found["metadata"].get(name) for name in ("uid", "labels", "annotations")}
            out[f"{body['kind']}/{metadata['name']}"] = {**kept, "spec": found.get("spec")}
    return out


def _pod(**extra: Any) -> Body:
    container = {"name": "main", "image": _IMAGE, "command": ["sleep", "infinity"], **extra}
    return {"containers": [container]}


def _storage() -> list[Body]:
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "work", "labels": {"made-by": "ada"}},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "5Gi"}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "bucket"},
            "stringData": {"key": "not-a-real-one"},
        },
    ]


def _workbench() -> list[Body]:
    notebook = _pod(volumeMounts=[{"name": "work", "mountPath": "/home/jovyan"}])
    notebook["containers"][0]["name"] = "notes"
    claim = {"name": "work", "persistentVolumeClaim": {"claimName": "work"}}
    return [
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "Notebook",
            "metadata": {
                "name": "notes",
                "labels": {"app": "notes"},
                "annotations": {"notebooks.kubeflow.org/creator": "ada@example.com"},
            },
            "spec": {"template": {"spec": {**notebook, "volumes": [claim]}}},
        },
        {
            "apiVersion": "kubeflow.org/v1alpha1",
            "kind": "PodDefault",
            "metadata": {"name": "bucket"},
            "spec": {
                "desc": "sign-in for the bucket",
                "selector": {"matchLabels": {"bucket": "true"}},
                "env": [{"name": "BUCKET", "value": "s3://team-a"}],
            },
        },
        {
            "apiVersion": "tensorboard.kubeflow.org/v1alpha1",
            "kind": "Tensorboard",
            "metadata": {"name": "losses"},
            "spec": {"logspath": "pvc://data/logs"},
        },
    ]


def _pipelines() -> list[Body]:
    workflow = {
        "entrypoint": "train",
        "serviceAccountName": "default-editor",
        "templates": [{"name": "train", "container": {"image": _IMAGE, "command": ["train"]}}],
    }
    run = "5f2c9a52-6b0c-4d9e-8a9a-2f8f6f0c1a11"
    return [
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": "train-x7k2p", "labels": {"pipeline/runid": run}},
            "spec": workflow,
        },
        {
            "apiVersion": "kubeflow.org/v1beta1",
            "kind": "ScheduledWorkflow",
            "metadata": {"name": "nightly"},
            "spec": {
                "enabled": True,
                "maxConcurrency": 1,
                "trigger": {"cronSchedule": {"cron": "0 0 2 * * *"}},
                "workflow": {"spec": workflow},
            },
            "status": {},  # its CRD asks for one
        },
    ]


def _inference_service() -> Body:
    model = {
        "modelFormat": {"name": "sklearn"},
        "storageUri": "s3://team-a/models/iris",
        "resources": {"requests": {"cpu": "100m"}},
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris", "annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": {"predictor": {"minReplicas": 1, "model": model}},
    }


def _experiment() -> Body:
    trial = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"template": {"spec": {**_pod(), "restartPolicy": "Never"}}},
    }
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "search"},
        "spec": {
            "objective": {"type": "minimize", "goal": 0.001, "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random"},
            "parallelTrialCount": 2,
            "maxTrialCount": 8,
            "maxFailedTrialCount": 2,
            "parameters": [
                {
                    "name": "lr",
                    "parameterType": "double",
                    "feasibleSpace": {"min": "0.01", "max": "0.05"},
                }
            ],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "lr", "reference": "lr", "description": "rate"}],
                "trialSpec": trial,
            },
        },
    }


def _spark_application() -> Body:
    size = {"cores": 1, "memory": "512m"}
    return {
        "apiVersion": "sparkoperator.k8s.io/v1beta2",
        "kind": "SparkApplication",
        "metadata": {"name": "features"},
        "spec": {
            "type": "Python",
            "mode": "cluster",
            "sparkVersion": "4.0.0",
            "image": _IMAGE,
            "mainApplicationFile": "local:///opt/app/features.py",
            "driver": size,
            "executor": {**size, "instances": 2},
        },
    }


def _pytorch_job() -> Body:
    pod = _pod()
    pod["containers"][0]["name"] = "pytorch"
    workers = {"replicas": 2, "restartPolicy": "OnFailure", "template": {"spec": pod}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "resnet"},
        "spec": {"pytorchReplicaSpecs": {"Master": {**workers, "replicas": 1}, "Worker": workers}},
    }


def _train_job() -> Body:
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "resnet"},
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "ClusterTrainingRuntime",
                "name": "torch-distributed",
            },
            "trainer": {"numNodes": 2, "image": _IMAGE},
        },
    }
