"""Hydra's plugins. Hydra imports this package at every start, so nothing here may import torch."""
