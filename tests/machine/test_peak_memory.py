from __future__ import annotations

import torch

from vitbench.machine.peak_memory import peak_of_step


def test_peak_memory_of_a_known_step_is_its_tensors() -> None:
    x = torch.zeros(1000)  # 4,000 bytes

    def step() -> None:
        a = x + 1  # 8,000 bytes are held
        b = a + 1  # 12,000
        del a
        c = b + 1  # 12,000 again
        del b, c

    assert peak_of_step(step, [x], x.device) == 12_000
