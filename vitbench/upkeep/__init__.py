"""Keeps a workplace in order: checks the machine (`doctor`) and the files (`check`), deletes leftovers (`clean`)."""
