"""What the API server adds to a pod template and its like by itself.

An object as it lives is compared with one as it was rendered: what only the first has, and is one
of these, nobody asked for. From k8s.io/kubernetes pkg/apis/{core,batch,apps}/v1/defaults.go.
"""

from __future__ import annotations

from typing import Any, Final

_MODES: Final = (420,)
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
    "defaultMode": _MODES,
    "expirationSeconds": (3600,),
    "volumeMode": ("Filesystem",),
    "apiGroup": ("rbac.authorization.k8s.io",),
    "status": ({"phase": "Pending"}, {}),
}
_FIELD_VERSION: Final = "v1"
_WRITTEN: Final = frozenset(
    (
        # Labels of a Job's pods, by which it knows them.
        *("controller-uid", "job-name"),
        *("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"),
        *("creationTimestamp", "serviceAccount"),
    )
)


def is_server_default(path: tuple[Any, ...], value: Any) -> bool:
    """Whether the API server itself wrote this field of a pod template or a claim template."""
    key = path[-1]
    if key in _WRITTEN:
        return True
    if key == "apiVersion" and path[-2:-1] == ("fieldRef",):
        return bool(value == _FIELD_VERSION)
    # A claim template in a StatefulSet is an object with a kind of its own.
    if key in ("kind", "apiVersion"):
        return value in ("PersistentVolumeClaim", "v1")
    return value in _VALUES.get(key, ()) if isinstance(key, str) else False
