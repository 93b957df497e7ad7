"""The audit: is the attack itself to be believed? Checks on a random subset, outside the cascade."""

from __future__ import annotations

from robustlab.audit.work import FORWARD as FORWARD
from robustlab.audit.work import audit as audit
from robustlab.audit.work import collected as collected
from robustlab.audit.work import row_steps as row_steps
