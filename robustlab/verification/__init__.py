"""A run's numbers once more: from its stored adversarials, with the models and the data loaded again.

A stored adversarial proves that its sample falls: whoever has the model can look at it again. That an attack failed on
a sample cannot be proved so, only tried again; what is recomputed there is that its last point does not fool the model.
What only the search knows is taken as stored: passes, ranks, seconds, and successes that it took back itself.
"""

from robustlab.verification.checks import Compared, Verification
from robustlab.verification.verify import verify

__all__ = ["Compared", "Verification", "verify"]
