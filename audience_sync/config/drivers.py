"""The database that a source's URL names, and whether its driver is installed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import MappingProxyType

from audience_sync.config.address import ENCODE, SQLITE, Address, parse
from audience_sync.config.placeholder import is_placeholder

Driver = tuple[str, str]
"""The module to look for, and what pip is told to install."""

PSYCOPG: Driver = ("psycopg", "'audience-sync[postgres]'")
PYMYSQL: Driver = ("pymysql", "'audience-sync[mysql]'")
MYSQLCLIENT: Driver = ("MySQLdb", "mysqlclient")
DRIVERS: Mapping[str, Driver] = MappingProxyType(
    {
        **dict.fromkeys(SQLITE, ("sqlite3", "")),
        "postgresql": PSYCOPG,
        "postgresql+psycopg": PSYCOPG,
        "mysql+pymysql": PYMYSQL,
        "mariadb+pymysql": PYMYSQL,
        "mysql": MYSQLCLIENT,
        "mariadb": MYSQLCLIENT,
        "mysql+mysqldb": MYSQLCLIENT,
        "mariadb+mysqldb": MYSQLCLIENT,
        "duckdb": ("duckdb_engine", "'audience-sync[duckdb]'"),
        "snowflake": ("snowflake.sqlalchemy", "snowflake-sqlalchemy"),
        "bigquery": ("sqlalchemy_bigquery", "sqlalchemy-bigquery"),
        "redshift+redshift_connector": (
            "sqlalchemy_redshift",
            "sqlalchemy-redshift redshift_connector",
        ),
        "databricks": ("databricks.sqlalchemy", "databricks-sqlalchemy"),
        "clickhousedb": ("clickhouse_connect", "clickhouse-connect"),
        "oracle+oracledb": ("oracledb", "oracledb"),
        "mssql+pyodbc": ("pyodbc", "pyodbc"),
    }
)
"""Others are known once a package that brings their dialect is installed."""

MEANT = MappingProxyType({"postgres": "postgresql", "pg": "postgresql", "sqlite3": "sqlite"})


def source_url(text: str) -> str:
    """Checks a source's URL; the path of a file in it is absolute already.

    Raises:
        ValueError: no database URL, another driver than we can use, or none installed.
    """
    url = parse(text)
    if any(is_placeholder(part) for part in (url.user, url.password, url.host.strip("[]"))):
        raise ValueError("holds a placeholder")
    if "@" in url.path:
        raise ValueError(f"cannot be taken apart; {ENCODE}")
    _check_driver(url.scheme)
    if url.scheme in SQLITE or url.scheme == "duckdb":
        _check_file(url)
    return text


def _check_driver(scheme: str) -> None:
    if scheme in DRIVERS:
        module, package = DRIVERS[scheme]
        if not _is_installed(module):
            raise ValueError(f"needs a driver that is not installed: pip install {package}")
    elif scheme.startswith("postgresql+"):
        raise ValueError("names another driver than psycopg; write postgresql://")
    elif not entry_points(group="sqlalchemy.dialects", name=scheme.replace("+", ".")):
        near = [MEANT[scheme]] if scheme in MEANT else difflib.get_close_matches(scheme, DRIVERS, 1)
        hint = f"write {near[0]}://" if near else "install a package with a dialect for SQLAlchemy"
        raise ValueError(f"unknown database driver; {hint}")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _check_file(url: Address) -> None:
    if url.user or url.host:
        raise ValueError("names a host; a file has three slashes: sqlite:///shop.db")
    if url.path in ("", "/", "/:memory:") or url.path.startswith("/file:"):
        raise ValueError("names no file; write its path: sqlite:///shop.db")
