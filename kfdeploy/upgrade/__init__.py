"""A workspace moved to another release of its upstream, in place.

Offers `upgrade.upgrade_workspace`, which prepares the files of the new release, tries people's
patches on it, puts the files in place and returns a report. Pure decisions are in `components`,
`images`, `patches`, `settings_edit` and `report`; `plan`, `release`, `prepare` and `write` touch
files and registries. The package must not know the command line, and prints nothing.
"""
