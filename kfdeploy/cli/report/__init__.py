"""Results as text for people: a module for each kind of result, with pure functions of values.

A module turns one result into lines, as text, Markdown, CSV or a table. It reads no file and asks
no network.
"""
