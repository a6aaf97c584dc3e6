"""Ctrl-C and SIGTERM: the first is only recorded, the second raises KeyboardInterrupt."""

import signal
from threading import Thread

import pytest

from r2unet.training.interruption import StopSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_recorded_and_the_second_interrupts(number):
    with StopSignal() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


@pytest.mark.parametrize(
    "handler, recorded", [(signal.SIG_DFL, True), (signal.SIG_IGN, False)], ids=["as usual", "nohup"]
)
def test_a_closed_terminal_is_recorded_however_often_it_is_signalled_unless_nohup_ignores_it(
    handler, recorded
):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with StopSignal() as stop:
            for _ in range(3):
                signal.raise_signal(signal.SIGHUP)
                assert stop.requested == recorded
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_previous_handlers_are_restored_even_after_an_error():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), StopSignal():
        assert signal.getsignal(signal.SIGINT) != before[0]
        raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_in_another_thread_no_handler_is_installed():
    requested = []

    def enter():
        with StopSignal() as stop:
            requested.append(stop.requested)

    thread = Thread(target=enter)
    thread.start()
    thread.join()
    assert requested == [False]
