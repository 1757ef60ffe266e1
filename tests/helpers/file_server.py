"""A file server on loopback with faults, and tables of sources that name its files."""

import hashlib
import http.server

from rtt.study import sources


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` ({path: bytes}); `faults` ({path: [fault, ...]}) are taken first, one a request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.faults, self.asked = {}, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        faults = self.server.faults.get(self.path, [])
        fault = faults.pop(0) if faults else None
        if fault == "drop":
            return self.connection.close()
        body = self.server.content.get(self.path)
        if isinstance(fault, int) or body is None:
            return self.send_error(fault or 404)
        self.send_response(200)
        if fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "truncated" else body)

    def log_message(self, *args):
        pass


def row(name, url, content, kind="file", **more):
    group, columns = name.split("/")[0], dict.fromkeys(sources.COLUMNS, "")
    columns |= {"name": name, "group": group, "kind": kind, "url": url, "licence": "none stated", "holds": "facts"}
    if content is not None:
        columns |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": str(len(content))}
    return "\t".join((columns | more).values())


def table(path, *rows):
    path.write_text("\n".join(["\t".join(sources.COLUMNS), *rows]) + "\n")
    return path


def download_port():
    """A port of this machine on which nobody listens."""
    closed = Server()
    closed.server_close()
    return closed.server_port
