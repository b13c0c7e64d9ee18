"""The registry doctor: tries at a registry what publishing needs of it, and says for each fault the one thing to do.

Everything it makes is of fixed content in one repository, `<repository>/doctor`, and deleted again where the registry
allows, so nothing piles up. What it finds out is the plan that pushes follow. Of databases it knows nothing.
"""

from publishing.doctor.access import password_age as password_age
from publishing.doctor.examination import examine as examine
from publishing.doctor.report import FAIL as FAIL
from publishing.doctor.report import OK as OK
from publishing.doctor.report import WARN as WARN
from publishing.doctor.report import Check as Check
from publishing.doctor.report import Report as Report
