"""What a run prints: its seed, its counts, each invariant with what it compared, and every violation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.verdict import Finding

SHOWN = 25
"""Violations of one invariant that are spelled out."""


@dataclass(frozen=True)
class Report:
    seed: int
    findings: Sequence[Finding]
    counts: Mapping[str, object]
    notes: Sequence[str] = field(default_factory=list)
    """What went wrong with the run itself; a run with notes has failed."""

    @property
    def good(self) -> bool:
        return not self.notes and not any(finding.violations for finding in self.findings)

    @property
    def text(self) -> str:
        width = max(map(len, self.counts), default=0)
        counts = [f"  {name:<{width}}  {value}" for name, value in self.counts.items()]
        return "\n".join([f"seed {self.seed}", *counts, *self._verdict(), "GOOD" if self.good else "VIOLATED"])

    def _verdict(self) -> list[str]:
        lines = [f"  ! {note}" for note in self.notes]
        for finding in self.findings:
            mark = "✗" if finding.violations else "✓"
            lines.append(f"  {mark} {finding.name} ({finding.compared} compared, {len(finding.violations)} violations)")
            lines += [f"      {violation}" for violation in finding.violations[:SHOWN]]
        return lines
