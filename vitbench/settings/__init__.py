"""Typed words become the settings of one run and its id. Nothing here touches the folder of a run.

`overrides` prepares the words, Hydra composes them with `conf/` (`compose`, `schema`), `check` refuses what cannot be,
and `identity` makes the id. `described` reads the words that describe a run beside another one. Facts that several of
them and the rooms above need are held once: what can be chosen in `choices`, and what is a share of images in `share`.
"""
