"""The form of patch files, and the pieces that generated ones are written from.

Offers `Patch` and `parse_patch`, the marks of generated files, targets, operations, annotations,
and files for a workload's containers; features write their patches with it. Knows Kubernetes'
objects, and must not know the workspace, images, or which patches there are.
"""
