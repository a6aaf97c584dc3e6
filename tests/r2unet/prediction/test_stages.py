"""The time of each stage, measured with both clocks."""

import time

from r2unet.prediction.stages import Stages


def test_the_times_of_a_stage_are_added_up_and_divided_by_the_number_of_photographs(monkeypatch):
    clocks = {"perf_counter": iter([0.0, 1.0, 10.0, 13.0, 20.0, 22.0])}
    clocks["process_time"] = iter([0.0, 0.5, 1.0, 2.5, 3.0, 4.0])
    for name, ticks in clocks.items():
        monkeypatch.setattr(time, name, ticks.__next__)
    stages = Stages()
    for name in ("read", "network", "read"):
        with stages(name):
            pass
    assert stages.elapsed == {"read": 3.0, "network": 3.0}
    assert stages.processor == {"read": 1.5, "network": 1.5}
    lines = [line.split() for line in stages.table(2).splitlines()]
    assert lines[1] == ["read", "1500.0", "ms", "750.0", "ms", "50.0%"]
    assert lines[-1] == ["total", "3000.0", "ms", "1500.0", "ms", "100.0%"]
