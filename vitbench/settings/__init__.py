"""Turns typed words into the settings of one run and its id. Nothing here touches the folder of a run.

`overrides` prepares the words, Hydra composes them with `conf/` (`compose`, `schema`), `check` refuses impossible
settings, and `identity` makes the id. `described` reads the words that describe a run beside another one. Facts that
several of these modules and the rooms above need are kept once: `choices` has what can be chosen, and `share` has what
decides the share of images.
"""
