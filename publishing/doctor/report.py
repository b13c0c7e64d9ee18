"""What the registry doctor found: checks, each with the one thing to do."""

from dataclasses import asdict, dataclass, field

from publishing.oci.plan import Plan

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Check:
    """One thing that was tried. `remedy` is the one thing to do, empty where there is none."""

    name: str
    state: str
    said: str
    remedy: str = ""


@dataclass
class Report:
    """`plan` is None where the registry could not even be asked."""

    checks: list[Check] = field(default_factory=list)
    plan: Plan | None = None

    @property
    def state(self) -> str:
        """The worst of all."""
        states = {check.state for check in self.checks}
        return FAIL if FAIL in states else WARN if WARN in states else OK

    def as_json(self) -> list[dict[str, str]]:
        """The checks."""
        return [asdict(check) for check in self.checks]

    def add_fault(self, name: str, message: str) -> None:
        """One that failed with a fault's sentence."""
        self.add(name, FAIL, *split(message))

    def add(self, name: str, state: str, said: str, remedy: str = "") -> None:
        """One more."""
        self.checks.append(Check(name, state, said, remedy))


def split(message: str) -> tuple[str, str]:
    """A fault's sentence as what is wrong and what to do, which stand on both sides of its last colon."""
    said, colon, remedy = message.rpartition("): ")
    if not colon:
        said, colon, remedy = message.rpartition(": ")
        return (f"{said}.", _sentence(remedy)) if colon else (message, "See the registry's log.")
    return f"{said}).", _sentence(remedy)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
