"""A dropout rate that stays as it is: what every run does, by a name to set beside the schedules (Srivastava et al. 2014).

Formula: p(t) = p.

Needs: nothing. A run with it is the same run as one without.
"""

from icbench.procedure import Procedure


def build() -> Procedure:
    """No options."""
    return _Constant()


class _Constant(Procedure):
    changes_nothing = True
