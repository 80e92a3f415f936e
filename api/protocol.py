"""What uvicorn answers before the application is asked, as a problem like every other error."""

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.errors import MALFORMED_HTTP, problem_response


class Protocol(H11Protocol):
    """uvicorn's own HTTP/1.1, for its `http` option. Headers and path are limited to 64 KB there."""

    def send_400_response(self, msg: str) -> None:
        """Answer what can't be read as a request, and hang up: where the next one begins is not known."""
        answer = problem_response(MALFORMED_HTTP, "What was sent is no HTTP request that could be read. Correct it.")
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=answer.status_code, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
