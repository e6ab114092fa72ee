"""Reads tables, their replica identities and types from the system catalogues."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from cdcrep.errors import SetupError
from cdcrep.table import Column, Table, TableId
from cdcrep_connectors.postgres.connection import Connection
from cdcrep_connectors.postgres.failures import translate
from cdcrep_connectors.postgres.relation import Relation as RelationMessage
from cdcrep_connectors.postgres.types import NativeType, column_type

DIALECT: Final = "postgresql"

RELATIONS: Final = r"""
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relispartition, c.relreplident::text,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
       row_security_active(c.oid), pg_has_role(c.relowner, 'USAGE'),
       ARRAY(SELECT relid::oid FROM pg_partition_ancestors(c.oid) WHERE relid <> c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_'
ORDER BY n.nspname, c.relname
"""

# A default counts as NOT NULL: with it a new column has values in rows for which no change is sent. They stay after the
# default was dropped (atthasmissing).
COLUMNS: Final = """
SELECT attrelid, attname, atttypid, atttypmod,
       attnotnull OR (attgenerated = '' AND (atthasdef OR atthasmissing OR (
           attrelid IN (SELECT inhparent FROM pg_inherits) AND EXISTS (
               SELECT FROM pg_partition_tree(attrelid) JOIN pg_attribute l ON l.attrelid = relid
               WHERE l.attname = a.attname AND l.atthasmissing)))),
       attgenerated::text
FROM pg_attribute a WHERE attrelid = ANY(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum
"""

# The conditions under which the server itself takes an index for a replica identity.
KEYS: Final = """
SELECT i.indrelid, i.indisprimary, i.indisreplident,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) AS k(attnum)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum)
FROM pg_index i
WHERE i.indrelid = ANY(%s) AND (i.indisprimary OR i.indisreplident)
  AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
"""

TYPES: Final = """
SELECT t.oid, n.nspname, t.typname, t.typtype::text,
       CASE WHEN EXISTS (SELECT FROM pg_type b WHERE b.typarray = t.oid) THEN t.typelem END,
       coalesce(nullif(t.typbasetype, 0), r.rngsubtype), t.typtypmod, rn.nspname, rt.typname,
       ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder),
       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
             ORDER BY attnum),
       ARRAY(SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
             ORDER BY attnum),
       ARRAY(SELECT atttypmod FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
             ORDER BY attnum),
       (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e' LIMIT 1)
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_range r ON t.oid IN (r.rngtypid, r.rngmultitypid)
LEFT JOIN pg_type rt ON rt.oid = r.rngtypid LEFT JOIN pg_namespace rn ON rn.oid = rt.typnamespace
WHERE t.oid = ANY(%s)
"""


@dataclass(frozen=True)
class Relation:
    """A relation that can be read or written like a table, and what decides whether it can be replicated."""

    oid: int
    id: TableId
    kind: str
    """`relkind`: r table, p partitioned table, f foreign table, m materialized view, v view."""
    persistence: str
    """`relpersistence`: p permanent, u unlogged, t temporary."""
    is_partition: bool
    replica_identity: str
    """`relreplident`: d default, n nothing, f full, i index."""
    readable: bool
    row_security: bool
    """Row-level security would hide rows from us."""
    owned: bool
    ancestors: Sequence[int]


@dataclass(frozen=True)
class Described:
    """A relation with its shape, or with the reason why it has none."""

    relation: Relation
    table: Table | None
    """None: a column's type is not supported."""
    has_identity: bool
    """UPDATE and DELETE can name their row."""
    omitted: tuple[str, ...] = ()
    """Generated columns, which the server does not send."""
    lacking_key: tuple[str, ...] = ()
    """Generated columns of the key: without them rows cannot be found."""
    extensions: tuple[tuple[str, str, str], ...] = ()
    """Column, type and extension of columns that only their text form carries."""
    problem: str = ""


class Catalog:
    """Looks things up on one connection, remembering types; one thread at a time, enforced by a lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._types: dict[int, NativeType] = {}
        self._written: dict[tuple[int, int], str] = {}
        self._lock = threading.Lock()

    def relations(self) -> list[Relation]:
        """List everything in user schemas that resembles a table, sorted by name."""
        return [_relation(row) for row in self._fetch(RELATIONS)]

    def describe(self, relations: Sequence[Relation], with_stored_generated: bool = False) -> list[Described]:
        """Read shapes; `with_stored_generated` where the publication sends stored generated columns (18 and later)."""
        oids = [relation.oid for relation in relations]
        columns: dict[int, list[tuple[Any, ...]]] = {oid: [] for oid in oids}
        for oid, *column in self._fetch(COLUMNS, [oids]):
            columns[oid].append(tuple(column))
        keys: dict[int, list[tuple[bool, bool, list[str]]]] = {oid: [] for oid in oids}
        for oid, primary, identity, names in self._fetch(KEYS, [oids]):
            keys[oid].append((primary, identity, names))
        with self._lock:
            self._load_types((type_oid, modifier) for rows in columns.values() for _, type_oid, modifier, *_ in rows)
        kinds = ("", "s") if with_stored_generated else ("",)
        return [self._describe(each, columns[each.oid], keys[each.oid], kinds) for each in relations]

    def _describe(
        self,
        relation: Relation,
        rows: Sequence[tuple[Any, ...]],
        keys: Sequence[tuple[bool, bool, list[str]]],
        generated_kinds: Sequence[str],
    ) -> Described:
        sent = [row for row in rows if row[4] in generated_kinds]
        names = [row[0] for row in sent]
        omitted = tuple(row[0] for row in rows if row[4] not in generated_kinds)
        identity = _identity_index(relation.replica_identity, keys)
        lacking = tuple(name for name in identity if name in omitted)
        full = relation.replica_identity == "f"
        key = () if lacking else tuple(name for name in names if name in identity)
        has_identity = full or bool(identity)
        columns: list[Column] = []
        extensions: list[tuple[str, str, str]] = []
        for name, oid, modifier, not_null, _ in sent:
            try:
                type_ = column_type(oid, modifier, self._types, self._format)
            except SetupError as error:
                problem = f"column {name!r} of {relation.id}: {error.message}"
                return Described(relation, None, has_identity, omitted, lacking, problem=problem)
            columns.append(Column(name, type_, nullable=not not_null))
            extensions += [(name, type_.native, extension) for extension in self._extensions(oid)]
        table = Table(relation.id.schema, relation.id.name, tuple(columns), key, DIALECT)
        return Described(
            relation, table, has_identity, omitted, () if full else lacking, tuple(dict.fromkeys(extensions))
        )

    def table_of(self, message: RelationMessage) -> Table:
        """Return the shape that a Relation message describes, which may be older than the catalogue's.

        Raises:
            SetupError: a type that the message names is not supported or does not exist any more.
        """
        now = self._by_oid(message.oid)
        id_ = TableId(message.schema, message.name)
        pairs = [(column.type_oid, column.type_modifier) for column in message.columns]
        with self._lock:
            self._load_types(pairs)
        current = {column.name: column for column in now.columns} if now else {}
        columns = []
        for column, (oid, modifier) in zip(message.columns, pairs, strict=True):
            if oid not in self._types:
                raise SetupError(
                    f"{id_}: the type of column {column.name!r} was dropped before its changes were replicated",
                    hint="drop the table in the target, then start again: it is copied anew",
                )
            type_ = column_type(oid, modifier, self._types, self._format)
            known = current.get(column.name)
            nullable = known is None or known.type != type_ or known.nullable
            columns.append(Column(column.name, type_, nullable))
        names = [column.name for column in columns]
        if message.replica_identity == "f":
            # Every column is flagged then; the primary key finds the row with less.
            key = now.key if now and set(now.key) <= set(names) else ()
        else:
            key = tuple(column.name for column in message.columns if column.is_key)
        return Table(id_.schema, id_.name, tuple(columns), tuple(name for name in names if name in key), DIALECT)

    def _by_oid(self, oid: int) -> Table | None:
        sql = RELATIONS.replace("WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v')", "WHERE c.oid = %s")
        rows = self._fetch(sql, [oid])
        if not rows:
            return None
        return self.describe([_relation(rows[0])], with_stored_generated=True)[0].table

    def _load_types(self, wanted: Iterable[tuple[int, int]]) -> None:
        """Read types that are not known yet with everything they consist of."""
        pairs = set(wanted)
        written = {pair for pair in pairs if pair not in self._written}
        missing = {oid for oid, _ in pairs} - self._types.keys()
        while missing:
            loaded = [_native_type(row) for row in self._query(TYPES, [list(missing)])]
            self._types.update((native.oid, native) for native in loaded)
            parts = {part for native in loaded for part in _parts(native)}
            written |= parts
            missing = {oid for oid, _ in parts} - self._types.keys()
        # The modifier of an array belongs to its elements.
        written |= {(e, m) for o, m in written if o in self._types and (e := self._types[o].element) is not None}
        asked = sorted(written - self._written.keys())
        texts = self._query(
            "SELECT format_type(o, m) FROM unnest(%s::oid[], %s::int[]) WITH ORDINALITY AS t(o, m, i) ORDER BY i",
            [[oid for oid, _ in asked], [modifier for _, modifier in asked]],
        )
        self._written.update((pair, text) for pair, (text,) in zip(asked, texts, strict=True))

    def _format(self, oid: int, modifier: int) -> str:
        return self._written[oid, modifier]

    def _extensions(self, oid: int) -> list[str]:
        """Name the extensions whose types a type consists of, except those that are mapped by themselves."""
        native = self._types[oid]
        own = [native.extension] if native.extension is not None else []
        return own + [name for part, _ in _parts(native) for name in self._extensions(part)]

    def _fetch(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._query(statement, values)

    def _query(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement.encode(), list(values) or None).fetchall()
        except psycopg.Error as error:
            raise translate(error, "reading the source's catalogue") from error


def _relation(row: tuple[Any, ...]) -> Relation:
    oid, schema, name, *rest = row
    return Relation(oid, TableId(schema, name), *rest)


def _identity_index(replica_identity: str, keys: Sequence[tuple[bool, bool, list[str]]]) -> tuple[str, ...]:
    """Return the columns of the index that identifies rows: with FULL the primary key, if there is one."""
    if replica_identity == "i":
        return next((tuple(names) for _, identity, names in keys if identity), ())
    if replica_identity in ("d", "f"):
        return next((tuple(names) for primary, _, names in keys if primary), ())
    return ()


def _native_type(row: tuple[Any, ...]) -> NativeType:
    oid, schema, name, type_class, element, base, modifier, range_schema, range_name, labels, *fields, extension = row
    return NativeType(
        oid,
        schema,
        name,
        type_class,
        element,
        base,
        modifier,
        (range_schema, range_name) if range_name else None,
        tuple(labels),
        tuple(zip(*fields, strict=True)) if type_class == "c" else (),
        extension,
    )


def _parts(native: NativeType) -> list[tuple[int, int]]:
    """List the types with modifiers that a type directly consists of."""
    if native.element is not None:
        return [(native.element, -1)]
    if native.base is not None:
        return [(native.base, native.base_modifier if native.type_class == "d" else -1)]
    return [(oid, modifier) for _, oid, modifier in native.fields]
