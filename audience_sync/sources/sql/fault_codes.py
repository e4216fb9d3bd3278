"""What the numbers of databases' errors mean, as sentences, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from audience_sync.sources.sql.statement import ONE_SELECT

TIMED_OUT = "the database ended the query, as it took too long or was cancelled"
NO_ENTRY = "the database refuses the user or the password"
NO_RIGHT = "the database's user may not read this"
NO_DATABASE = "there is no such database"
CUT = "the connection was cut before the last row"
UNREACHED = "the database cannot be reached"
BUSY = "the database is busy or going down"

MYSQL: Mapping[int, str] = MappingProxyType(
    {
        **dict.fromkeys((1044, 1045, 1698), NO_ENTRY),
        **dict.fromkeys((1142, 1143, 1227, 1370), NO_RIGHT),
        1049: NO_DATABASE,
        **dict.fromkeys((1317, 1969, 3024, 1028), TIMED_OUT),
        **dict.fromkeys((2006, 2013, 2055), CUT),
        **dict.fromkeys((2002, 2003, 2005), UNREACHED),
        **dict.fromkeys((1040, 1053, 1205, 1213), BUSY),
        **dict.fromkeys((1792, 1290, 1295), ONE_SELECT),
    }
)
"""By error number; https://mariadb.com/kb/en/mariadb-error-code-reference/"""
MYSQL_OF_THE_QUERY = frozenset({1046, 1051, 1052, 1054, 1055, 1060, 1064, 1109, 1111, 1140, 1146})
MYSQL_OF_THE_QUERY |= {1222, 1241, 1242, 1247, 1248, 1305, 1630}
"""Errors whose text names tables, columns and the query's own words."""

SQLITE: Mapping[int, str] = MappingProxyType(
    {5: BUSY, 6: BUSY, 8: ONE_SELECT, 9: TIMED_OUT, 10: CUT, 14: UNREACHED, 23: NO_RIGHT}
)
"""By primary result code; https://www.sqlite.org/rescode.html"""
SQLITE_OF_THE_QUERY = re.compile(
    r"no such (table|column|function|collation)|ambiguous column|near \"|incomplete input|misuse of"
    r"|wrong number of arguments|a GROUP BY clause|no tables specified|unrecognized token"
    r"|\d+ values for|SELECTs to the left|sub-select returns"
)
REFUSALS = frozenset({ONE_SELECT, NO_ENTRY, NO_RIGHT, NO_DATABASE})
"""Nothing of these ends by itself."""
HINTS: Mapping[str, str] = MappingProxyType(
    {
        NO_ENTRY: "check url and connect_args of the source",
        NO_DATABASE: "check url of the source",
        NO_RIGHT: "grant SELECT to the user of the source",
        TIMED_OUT: "raise timeout, or make the query quicker; the next run tries again",
        UNREACHED: "check host, port and network; the next run tries again",
        BUSY: "the next run tries again",
        CUT: "the next run tries again",
    }
)

POSTGRESQL: Mapping[str, str] = MappingProxyType(
    {
        "28": NO_ENTRY,
        "3D": NO_DATABASE,
        "42501": NO_RIGHT,
        "57014": TIMED_OUT,
        "57": BUSY,
        "53": BUSY,
        "40": BUSY,
        "55": BUSY,
        "08": CUT,
    }
)
"""By the beginning of SQLSTATE; https://www.postgresql.org/docs/current/errcodes-appendix.html"""
