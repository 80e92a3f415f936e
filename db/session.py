"""Connections: one engine a process, one session a transaction."""

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

Sessions = async_sessionmaker[AsyncSession]
"""`async with sessions.begin() as session:` is one transaction, committed at the end of the block."""


def make_engine(database_url: str, pool_size: int = 10) -> AsyncEngine:
    """An engine. Connects when first used; dispose of it when done."""
    return create_async_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_timeout=20,
        hide_parameters=True,  # what founders wrote must not stand in an error's text, and so in history or a log
        connect_args={"timeout": 10, "server_settings": {"application_name": "cofounder", "timezone": "UTC"}},
    )


def make_sessions(engine: AsyncEngine) -> Sessions:
    """A factory of sessions on the engine."""
    return async_sessionmaker(engine, expire_on_commit=False)
