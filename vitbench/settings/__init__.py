"""Typed words become the settings of one run and its id. Nothing here touches the folder of a run."""
