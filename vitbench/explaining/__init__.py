"""Explains settings in words, for `--help`, shell completion and docs/reference/settings.md. Imports no torch.

`comments` reads the sentences beside the settings; `explained` adds defaults, choices and ranges; `help_page` lays them
out for a terminal.
"""
