"""Reads the machine's certificates once for all HTTP clients of a process."""

import functools
import os
import ssl

import httpcore2


def share_certificates() -> None:
    """Let all HTTP clients without certificates of their own share a context: each would take 20 ms to make one."""
    make = httpcore2.default_ssl_context

    @functools.cache
    def made(trust_env: bool, file: str | None, directory: str | None) -> ssl.SSLContext:
        return make(_trust_env=trust_env)

    def shared(*, _trust_env: bool = True) -> ssl.SSLContext:
        return made(_trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))

    httpcore2.default_ssl_context = shared
