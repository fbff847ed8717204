from __future__ import annotations

import os
import signal

import pytest

from vitbench.machine.interrupt import Interrupt


def test_a_hang_up_saves_but_not_under_nohup() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, received in ((signal.SIG_DFL, signal.SIGHUP), (signal.SIG_IGN, None)):
            signal.signal(signal.SIGHUP, handler)
            with Interrupt() as interrupt:
                interrupt.saves()
                os.kill(os.getpid(), signal.SIGHUP)
            assert interrupt.received == received
            assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
def test_before_anything_can_be_saved_a_signal_ends_the_process_with_143(name: str) -> None:
    with pytest.raises(SystemExit) as end, Interrupt():
        os.kill(os.getpid(), getattr(signal, name))
    assert end.value.code == 143
