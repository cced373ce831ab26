"""Fields that the API server itself adds to a pod template or a claim template.

A live object is compared with a rendered one. A field that only the live one has is no difference
if the API server wrote it. The values are those of k8s.io/kubernetes
pkg/apis/{core,batch,apps}/v1/defaults.go.
"""

from __future__ import annotations

from typing import Any, Final

_VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "restartPolicy": ("Always",),
    "terminationMessagePath": ("/dev/termination-log",),
    "terminationMessagePolicy": ("File",),
    "imagePullPolicy": ("Always", "IfNotPresent"),
    "dnsPolicy": ("ClusterFirst",),
    "schedulerName": ("default-scheduler",),
    "securityContext": ({},),
    "resources": ({},),
    "emptyDir": ({},),
    "terminationGracePeriodSeconds": (30,),
    "enableServiceLinks": (True,),
    "protocol": ("TCP",),
    "timeoutSeconds": (1,),
    "periodSeconds": (10,),
    "successThreshold": (1,),
    "failureThreshold": (3,),
    "scheme": ("HTTP",),
    "defaultMode": (0o644,),
    "expirationSeconds": (3600,),
    "volumeMode": ("Filesystem",),
    "apiGroup": ("rbac.authorization.k8s.io",),
    "status": ({"phase": "Pending"}, {}),
}
_ALWAYS_WRITTEN: Final = frozenset(
    (
        # Labels by which a Job finds its pods.
        *("controller-uid", "job-name"),
        *("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"),
        *("creationTimestamp", "serviceAccount"),
    )
)


def is_server_default(path: tuple[Any, ...], value: Any) -> bool:
    """Return whether the API server wrote this field of a pod template or a claim template."""
    key = path[-1]
    if key in _ALWAYS_WRITTEN:
        return True
    if key == "apiVersion" and path[-2:-1] == ("fieldRef",):
        return bool(value == "v1")
    # A claim template in a StatefulSet has a kind and an apiVersion of its own.
    if key in ("kind", "apiVersion"):
        return value in ("PersistentVolumeClaim", "v1")
    return value in _VALUES.get(key, ()) if isinstance(key, str) else False
