"""Answer requests that uvicorn refuses before the application sees them, with a problem like every other error."""

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.errors import MALFORMED_HTTP, problem_response
from api.security_headers import HEADERS


class Protocol(H11Protocol):
    """uvicorn's own HTTP/1.1, for its `http` option. It limits headers and path to 64 KB."""

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not a request, and close the connection: the start of the next one is unknown."""
        detail = "The server could not read this as an HTTP request. Correct it."
        answer = problem_response(MALFORMED_HTTP, detail, headers=HEADERS)
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=answer.status_code, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
