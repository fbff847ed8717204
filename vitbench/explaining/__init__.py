"""Settings told in words: what `--help`, shell completion and docs/reference/settings.md say of them. Imports no torch.

`comments` reads the sentences where they stand, beside the settings; `explained` adds defaults, choices and ranges;
`help_page` lays them out for a terminal.
"""
