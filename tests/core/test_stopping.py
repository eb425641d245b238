"""Signals ask, the loop decides."""

import contextlib
import os
import signal

import pytest

from core import stopping


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)], ids=str
)
def test_a_signal_asks_to_stop_and_names_the_exit_status(number: signal.Signals, status: int):
    with stopping.Stop() as stop:
        assert (stop.asked(), stop.exit_status) == (False, 0)
        os.kill(os.getpid(), number)
        assert (stop.asked(), stop.signal, stop.exit_status) == (True, number, status)


def test_before_the_first_step_a_signal_ends_the_process():
    with pytest.raises(SystemExit) as left, stopping.Stop():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert left.value.code == 75


def test_a_second_interrupt_does_not_wait():
    with stopping.Stop() as stop:
        assert not stop.asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_other_signals_may_come_twice():
    with stopping.Stop() as stop:
        assert not stop.asked()
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert stop.exit_status == 130  # the last one


def test_what_signals_did_before_they_do_again():
    before = [signal.getsignal(number) for number in stopping.EXIT_STATUS]
    with contextlib.suppress(ZeroDivisionError), stopping.Stop():
        assert signal.getsignal(signal.SIGTERM) not in before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in stopping.EXIT_STATUS] == before
