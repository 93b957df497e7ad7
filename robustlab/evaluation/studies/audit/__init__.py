"""The audit: is the attack itself to be believed? Checks on a random subset, outside the cascade."""

from __future__ import annotations

from robustlab.evaluation.studies.audit.work import FORWARD as FORWARD
from robustlab.evaluation.studies.audit.work import audit as audit
from robustlab.evaluation.studies.audit.work import collected as collected
from robustlab.evaluation.studies.audit.work import row_steps as row_steps
