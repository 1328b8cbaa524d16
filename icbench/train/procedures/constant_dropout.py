"""A constant dropout rate: what runs have anyway, by a name to set beside schedules (Srivastava et al. 2014, JMLR 15).

Formula: p(t) = p.

Needs: nothing. A run with it is the same run as one without.
"""

from icbench.config import Recipe
from icbench.procedure import Procedure


def build() -> Procedure:
    """No options."""
    return _Constant()


class _Constant(Procedure):
    is_schedule = True

    def changes(self, recipe: Recipe) -> bool:
        return False
