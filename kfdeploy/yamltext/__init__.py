"""Read YAML with the lines it stands on, and write YAML that every version reads alike.

`nodes` parses, `emit` writes, and `mistakes` names the line and key of what is wrong in a file that
people write. Must not know what the YAML means: Kubernetes objects are in `kubernetes`.
"""
