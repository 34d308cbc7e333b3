"""Ways to a server that can be cut: every connection reset at once, new ones refused. Used by `benches/restore cuts`.

A Redis server that is told to follow us comes back by a connection of its own. So that it can be cut, too, the port that it
is told is exchanged as it passes for one of ours, and exchanged again where the server tells it.
"""

import asyncio
import re
import socket
import struct
import threading

PIECE = 64 * 1024
FOLLOW = re.compile(rb"(\r\nREPLICAOF\r\n\$9\r\n127\.0\.0\.1\r\n\$5\r\n)(\d{5})\r\n")


class Way:
    """One listening socket, and where it leads."""

    def __init__(self, host=None, port=None):
        self.to = (host, port)
        self.port = 0
        self.listener = None
        self.lines = set()


class Cutter:
    """A main way, and for Redis the one back. Everything below `_` runs in the thread of the loop."""

    def __init__(self, host, port):
        self.main, self.feed = Way(host, port), Way()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.reset()
        self.open()

    def reset(self):
        """Counts anew, and cuts nothing."""
        self.passed, self.budget = 0, None
        # Of each connection of the main way, how many bytes the server has sent; which is to be cut, and behind how many.
        self.answers, self.last = [], None
        self.parts, self.cuts, self.refuse_for = None, 0, 0.0
        self.happened = threading.Event()

    def arm(self, parts, refuse_for, budget=None, last=None):
        """What is cut: `main`, `feed` or both; behind so many bytes in all, or so many of one connection's answer.
        With `refuse_for` none there is no way until `open`."""
        self.reset()
        self.parts, self.refuse_for, self.budget, self.last = parts, refuse_for, budget, last

    def open(self):
        asyncio.run_coroutine_threadsafe(self._open(), self.loop).result()

    def cut(self):
        asyncio.run_coroutine_threadsafe(self._cut(), self.loop).result()

    async def _open(self):
        for way in (self.main, self.feed):
            if way.listener is None:
                opened = await asyncio.start_server(lambda r, w, way=way: self._pass(way, r, w), "127.0.0.1", way.port)
                way.listener, way.port = opened, opened.sockets[0].getsockname()[1]

    async def _cut(self):
        if self.cuts:
            return
        self.cuts += 1
        for way in (self.main, self.feed):
            if ("main" if way is self.main else "feed") in self.parts:
                way.listener.close()
                way.listener = None
                for writer in list(way.lines):
                    writer.transport.abort()
        if self.refuse_for is not None:
            self.loop.call_later(self.refuse_for, lambda: self.loop.create_task(self._open()))
        self.happened.set()

    async def _pass(self, way, reader, writer):
        try:
            back, to = await asyncio.open_connection(*way.to)
        except OSError:
            writer.transport.abort()
            return
        if way.listener is None:
            # It came in while all were cut.
            writer.transport.abort()
            to.transport.abort()
            return
        number = len(self.answers)
        if way is self.main:
            self.answers.append(0)
        for one in (writer, to):
            # Aborted, it is reset.
            one.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            way.lines.add(one)
        try:
            await asyncio.gather(self._one_way(way, None, reader, to), self._one_way(way, number, back, writer))
        finally:
            for one in (writer, to):
                way.lines.discard(one)
                one.transport.abort()

    async def _one_way(self, way, number, reader, writer):
        try:
            while piece := await reader.read(PIECE):
                piece, over = self._counted(way, number, self._exchanged(way, number, piece))
                writer.write(piece)
                if over:
                    await self._cut()
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()

    def _counted(self, way, number, piece):
        """As much of it as may pass, and whether that is the end."""
        room = len(piece)
        if self.budget is not None and not self.cuts:
            room = min(room, self.budget - self.passed)
        if way is self.main and number is not None and number < len(self.answers):
            if self.last is not None and self.last[0] == number and not self.cuts:
                room = min(room, self.last[1] - self.answers[number])
            self.answers[number] += room
        self.passed += room
        return piece[:room], room < len(piece)

    def _exchanged(self, way, number, piece):
        if way is not self.main:
            return piece
        if number is None:
            found = FOLLOW.search(piece)
            if found:
                self.feed.to = ("127.0.0.1", int(found[2]))
                piece = FOLLOW.sub(rb"\g<1>%d\r\n" % self.feed.port, piece)
            return piece
        return piece.replace(b"master_port:%d\r\n" % self.feed.port, b"master_port:%d\r\n" % (self.feed.to[1] or 0))
