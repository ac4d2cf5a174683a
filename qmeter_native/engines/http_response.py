"""Reads one HTTP/1.1 response as it arrives (RFC 9112): bytes of a connection → bytes of the body."""

from __future__ import annotations

__all__ = ["HttpResponse", "MalformedResponseError"]

_MAX_HEAD_BYTES = 65_536


class MalformedResponseError(Exception):
    """What arrived is not HTTP/1.1."""


class HttpResponse:
    """One response, framed by chunks, by its length or by the end of the connection.

    Attributes:
        status: Status code; 0 until the head has arrived.
        is_complete: The whole body has arrived.
    """

    def __init__(self) -> None:
        self.status = 0
        self.is_complete = False
        self._rest = b""  # what makes no whole head or chunk size yet
        self._is_chunked = False
        self._left: int | None = None  # bytes that the body or chunk still has; None = until the connection ends

    def feed(self, data: bytes) -> bytes:
        """Take in what was read; return what there is of the body in it.

        Raises:
            MalformedResponseError: It is not HTTP/1.1.
        """
        if self.status:
            return self._body(data)
        data = self._rest + data
        head, separator, rest = data.partition(b"\r\n\r\n")
        if not separator:
            if len(data) > _MAX_HEAD_BYTES or not data.startswith(b"HTTP/1."[: len(data)]):
                raise MalformedResponseError(f"no HTTP/1.1 response: {data[:80].decode(errors='replace')}")
            self._rest = data
            return b""
        self._rest = b""
        self._read_head(head)
        return self.feed(rest)

    def end(self) -> None:
        """The connection ended: that ends a body without any other framing."""
        self.is_complete = self.is_complete or (bool(self.status) and self._left is None)

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        try:
            status = int(first.split(" ")[1])
            length = int(headers["content-length"]) if "content-length" in headers else None
        except (IndexError, ValueError) as error:
            raise MalformedResponseError(f"no HTTP/1.1 response: {first[:80]}") from error
        if status < 200:  # only announces the response itself
            return
        self.status = status
        self._is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = 0 if self._is_chunked else length
        self.is_complete = self._left == 0 and not self._is_chunked

    def _body(self, data: bytes) -> bytes:
        if self._is_chunked:
            return self._dechunk(self._rest + data)
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self.is_complete = self._left == 0
        return data

    def _dechunk(self, data: bytes) -> bytes:
        """``_left`` counts the line end behind a chunk's bytes too."""
        parts = []
        position = 0
        while not self.is_complete:
            if not self._left:
                line_end = data.find(b"\r\n", position)
                if line_end < 0:
                    break
                size = _chunk_size(data[position:line_end])
                position = line_end + 2
                self._left = size + 2
                self.is_complete = size == 0
            taken = min(self._left, len(data) - position)
            if taken == 0:
                break
            parts.append(data[position : position + min(taken, self._left - 2)] if self._left > 2 else b"")
            position += taken
            self._left -= taken
        self._rest = data[position:]
        return b"".join(parts)


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or digits.strip(b"0123456789abcdefABCDEF"):
        raise MalformedResponseError(f"no size of a chunk: {line[:80].decode(errors='replace')}")
    return int(digits, 16)
