"""Mistakes of the controller with a Prometheus that gives no usable answer."""

from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch

from controller.decide.scaling import basis, signal
from controller.decide.scaling.signal import Judged
from controller.decide.view import PoolView
from tests.simulation.planted.registry import Plant, bug

THEME = "sizes by a Prometheus"


@bug("a lost signal is as good as the agents' word", theme=THEME, seed=1)
def _() -> Plant:
    judge = signal.judge

    def never_held(view: PoolView) -> Judged:
        return replace(judge(view), held=False)

    return patch.object(basis, "judge", never_held)


@bug("an answer of an hour ago is taken for news", theme=THEME, seed=2)
def _() -> Plant:
    return patch.object(signal, "LATE", timedelta(days=1))
