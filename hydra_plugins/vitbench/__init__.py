"""Hydra finds plugins in this package; no torch is imported here, because Hydra imports it at every start."""
