"""vitbench's plugins of Hydra. Hydra imports this package at every start, so it must not import torch."""
