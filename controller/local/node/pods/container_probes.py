"""The probes of one container's present run: which are asked, and what their verdicts mean."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from controller.local.node.pods.pod_spec import ContainerSpec, Probe
from controller.local.node.pods.probes import Answer, ProbeKind, Tally


class Probed(Protocol):
    """The container that is probed."""

    def probe_forever(self, kind: ProbeKind, probe: Probe, answered: Callable[[Tally, Answer], bool]) -> None:
        """Ask a probe for the rest of the present run, as long as `answered` says so."""
        ...

    def probe_failed(self, message: str) -> None:
        """A probe was answered with a failure."""
        ...

    def probes_changed(self) -> None:
        """A verdict changed."""
        ...

    def unhealthy(self, grace_seconds: float | None, message: str) -> None:
        """The present run is to be stopped, with a grace of its own or the Pod's."""
        ...


class ContainerProbes:
    """The startup probe alone, then readiness and liveness."""

    def __init__(self, spec: ContainerSpec, probed: Probed) -> None:
        self._spec = spec
        self._probed = probed
        self._tallies: dict[ProbeKind, Tally] = {}

    @property
    def passed_startup(self) -> bool:
        """Whether the startup probe has passed, or there is none."""
        return self._spec.startup is None or self._verdict(ProbeKind.STARTUP) is True

    @property
    def ready(self) -> bool:
        """Whether the readiness probe passes, or there is none."""
        return self._spec.readiness is None or self._verdict(ProbeKind.READINESS) is True

    def resume(self, *, started: bool, ready: bool) -> None:
        """Take over what an earlier kubelet found of this run, until our own answers say otherwise."""
        if started:
            self._tallies[ProbeKind.STARTUP] = Tally(verdict=True)
        if ready:
            self._tallies[ProbeKind.READINESS] = Tally(verdict=True)

    def clear(self) -> None:
        """The run is over."""
        self._tallies.clear()

    def begin(self) -> None:
        """Ask the probes that are due by now."""
        if not self.passed_startup:
            self._ask(ProbeKind.STARTUP, self._spec.startup)
            return
        self._ask(ProbeKind.READINESS, self._spec.readiness)
        self._ask(ProbeKind.LIVENESS, self._spec.liveness)

    def _ask(self, kind: ProbeKind, probe: Probe | None) -> None:
        if probe is None:
            return

        def answered(tally: Tally, answer: Answer) -> bool:
            return self._answered(kind, probe, tally, answer)

        self._probed.probe_forever(kind, probe, answered)

    def _answered(self, kind: ProbeKind, probe: Probe, tally: Tally, answer: Answer) -> bool:
        """Take in an answer; whether the probe is to go on."""
        before = self._verdict(kind)
        if tally.verdict is None and before is not None:  # first answers of a new kubelet don't unsay the verdict
            tally = replace(tally, verdict=before)
        self._tallies[kind] = tally
        if not answer.success:
            self._probed.probe_failed(f"{kind.capitalize()} probe failed: {answer.detail}")
        if tally.verdict == before:
            return True
        self._probed.probes_changed()
        if kind is ProbeKind.STARTUP and tally.verdict:
            self.begin()
            return False
        if kind is not ProbeKind.READINESS and tally.verdict is False:
            self._probed.unhealthy(probe.grace_seconds, f"failed {kind} probe")
        return True

    def _verdict(self, kind: ProbeKind) -> bool | None:
        return self._tallies.get(kind, Tally()).verdict
