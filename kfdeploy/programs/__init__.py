"""Run outside programs: git, helm and helmfile.

`process` is the only module of kfdeploy that starts programs; the others call it, one module for
each program. They take and return kfdeploy's values, and raise UserError with the program's own
message. Must not know a workspace's settings.
"""
