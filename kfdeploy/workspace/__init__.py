"""Read `kfdeploy.yaml`: its settings as typed values, and the line of each key.

Offers `Workspace` (`settings`) and `read_workspace` (`settings_file`). The features bring their
sections; must not know what is done with the settings.
"""
