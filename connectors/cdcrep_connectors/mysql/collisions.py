"""Says which table refused a row, and what to do where others use its key or only the target has a constraint."""

from __future__ import annotations

import re
from typing import Final

from pymysql.constants import ER

from cdcrep.errors import CdcrepError
from cdcrep.position import Position
from cdcrep_connectors.mysql.failures import error_number, translate
from cdcrep_connectors.mysql.target_names import copy_again, quote
from cdcrep_connectors.mysql.target_tables import TargetTable

CHECKS_VIOLATED: Final = frozenset({3819, 4025})
"""ER_CHECK_CONSTRAINT_VIOLATED, MariaDB's ER_CONSTRAINT_FAILED."""

KEY: Final = re.compile(r"for key '(?:[^']*\.)?([^'.]+)'\.?$")
CONSTRAINT: Final = re.compile(r"(?:constraint '|CONSTRAINT `(?:[^`]*`\.`)*)([^'`]+)['`]", re.IGNORECASE)

ONLY_THE_TARGET: Final = "-- in the target, whose rows may not be subject to more than the source's"


def explain(target: TargetTable, position: Position | None, error: Exception) -> CdcrepError:
    """Turn the driver's exception into ours, which names the table, its key and where the source's changes stand."""
    number, text = error_number(error), str(error.args[-1]) if error.args else ""
    key = f"key {', '.join(target.table.key)}" if target.table.key else "no key"
    until = f"before position {position}" if position is not None else "in a large transaction"
    failure = translate(error, f"writing {target.table.id} ({key}) {until}")
    if failure.hint is None:
        failure.hint = _hint(target, number, text)
    return failure


def _hint(target: TargetTable, number: int | None, text: str) -> str | None:
    if number == ER.DUP_ENTRY and (found := KEY.search(text)):
        if found[1] in ("PRIMARY", target.key_index):
            return f"others have written rows with the same keys into the target's table; {copy_again(target.table.id)}"
        return f"DROP INDEX {quote(found[1])} ON {target.name};  {ONLY_THE_TARGET}"
    if number in CHECKS_VIOLATED and (found := CONSTRAINT.search(text)):
        return f"ALTER TABLE {target.name} DROP CONSTRAINT {quote(found[1])};  {ONLY_THE_TARGET}"
    return None
