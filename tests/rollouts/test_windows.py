from datetime import UTC, datetime

import pytest

from rollouts import windows

NIGHTS = {"days": ["fri"], "from": "22:00", "to": "04:00", "zone": "Europe/Berlin"}
OFFICE = {"days": ["mon", "tue"], "from": "09:00", "to": "17:00", "zone": "America/New_York"}


@pytest.mark.parametrize(
    ("window", "now", "is_open"),
    [
        (None, "2026-11-20T12:00", True),
        (NIGHTS, "2026-11-20T20:59", False),  # Friday, 21:59 in Berlin
        (NIGHTS, "2026-11-20T21:00", True),
        (NIGHTS, "2026-11-21T02:59", True),  # Saturday, of Friday's window
        (NIGHTS, "2026-11-21T03:00", False),
        (NIGHTS, "2026-11-21T22:00", False),
        (NIGHTS, "2026-07-03T20:00", True),  # in summer Berlin is two hours ahead
        (NIGHTS, "2026-07-03T19:59", False),
        (OFFICE, "2026-11-23T14:00", True),  # Monday, 09:00 in New York
        (OFFICE, "2026-11-23T13:59", False),
        (OFFICE, "2026-11-23T22:00", False),
        (OFFICE, "2026-11-25T15:00", False),
    ],
)
def test_window_is_open_on_its_days_in_its_time_zone(window: dict[str, object] | None, now: str, is_open: bool) -> None:
    assert windows.is_open(windows.checked(window), datetime.fromisoformat(now).replace(tzinfo=UTC)) is is_open
