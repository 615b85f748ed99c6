"""`trilemma studio`: one address, one folder, until Ctrl-C."""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from html import escape
from pathlib import Path
from threading import Timer
from typing import Annotated, Literal

from pydantic import Field

from trilemma.errors import UserError
from trilemma.extras import install_line
from trilemma.files import remove
from trilemma.studio.access import LOOPBACK, PASSWORD, Access
from trilemma.studio.jobs import State
from trilemma.studio.place import checked_folder, hold
from trilemma.values import checked_call

PORT, LAST_PORT = 8421, 65535
OPENING = "open.html"  # in the studio's own folder, while the browser is asked to open it
SHORTEST_PASSWORD = 8  # letters
MOST_CONNECTIONS = 64
LONGEST_HEADERS = 16 << 10  # bytes
KEEP_ALIVE_S = 5  # seconds that a connection may rest between two requests
CLOSING_S = 2  # seconds that open pages are given
OPENING_S = 60.0  # seconds that the browser has to open the page


@checked_call
def open_studio(
    folder: Annotated[str | Path, Field(description="folder of the runs and results (default: the current one)")] = ".",
    *,
    port: Annotated[int, Field(ge=1024, le=LAST_PORT, description="port of the address")] = PORT,
    open: Annotated[bool, Field(description="open the page in the browser")] = True,
    host: Annotated[
        str, Field(description=f"address to listen at; others than this machine's own need a password in {PASSWORD}")
    ] = LOOPBACK[0],
    jobs: Annotated[
        Literal["keep", "stop"],
        Field(
            description="running jobs when the studio closes: they run on (keep), or are stopped and keep their "
            "results so far (stop)"
        ),
    ] = "keep",
) -> None:
    """Serve the studio of a folder, until Ctrl-C. Jobs are processes of their own, and need not end with it.

    Args:
        folder: where runs, reports and pictures lie, as those of the command line typed there.
        port: of the address.
        open: whether the browser is asked to show it.
        host: 127.0.0.1 and ::1 answer this machine alone. With another one, others reach the studio over plain HTTP:
            the password in the environment's TRILEMMA_STUDIO_PASSWORD is asked for.
        jobs: what becomes of those that run when the studio closes: "keep" lets them run on; "stop" stops them as the
            button of a job does, and the others wait for the next studio of the folder.
    Raises:
        UserError: the extra is not installed, the folder is not there or open in another studio, the port is taken, or
            there is no password for a host that others reach.
    """
    require_extra()
    place, host = checked_folder(folder), host.strip("[]")
    access = Access(host, port, password_for(host))
    with closing(listen(host, port)) as server_socket, closing(hold(place, access.origin)):
        _serve(place, access, server_socket, browser=open, stop=jobs == "stop")


def require_extra() -> None:
    """Raises UserError, with the line that installs it, if a package of the studio is missing."""
    try:
        import fastapi  # noqa: F401  # pyright: ignore[reportMissingImports]
        import python_multipart  # noqa: F401  # pyright: ignore[reportMissingImports]
        import uvicorn  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError(f"the studio needs {error.name}, which is not installed: {install_line('studio')}") from None


def password_for(host: str) -> str | None:
    """The password that a host needs; None for this machine's own addresses.

    Raises:
        UserError: it needs one, and the environment has none, or a short one.
    """
    if host in LOOPBACK:
        return None
    password = os.environ.get(PASSWORD, "")
    if len(password) < SHORTEST_PASSWORD:
        raise UserError(
            f"host={host} can be reached by others, which needs a password of {SHORTEST_PASSWORD} letters or more in "
            f"the environment: {PASSWORD}=... trilemma studio host={host}"
        )
    return password


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: the port is taken, or the host is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    if os.name != "nt":  # there it would let two servers have one port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(MOST_CONNECTIONS)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            other = port + 1 if port < LAST_PORT else port - 1
            raise UserError(f"port {port} is taken, perhaps by another studio; give another: port={other}") from None
        raise UserError(f"cannot listen at host={host} port={port}: {error.strerror or error}") from None
    return listening


def _serve(place: Path, access: Access, server_socket: socket.socket, *, browser: bool, stop: bool) -> None:
    """Answer until Ctrl-C; then stop the jobs that run, if that is asked for."""
    import uvicorn  # pyright: ignore[reportMissingImports]

    from trilemma.studio.app import create_app
    from trilemma.studio.connection import Server, TimedProtocol
    from trilemma.studio.guard import Guard
    from trilemma.studio.service import Studio

    studio = Studio(place)
    studio.remove_unfinished()
    config = uvicorn.Config(
        Guard(create_app(studio, access), access),
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http=TimedProtocol,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=LONGEST_HEADERS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSING_S,
    )
    print(f"studio of {place}: {access.address}", flush=True)
    print("Ctrl-C closes it", file=sys.stderr)
    studio.queue.open()
    page = shown(access, studio.own) if browser else nullcontext()
    server = Server(config, studio.close)
    with closing(studio.queue), closing(studio), suppress(KeyboardInterrupt), page:
        server.run(sockets=[server_socket])
    running = [job.command for job in studio.queue.jobs() if job.state is State.RUNNING]
    if stop:
        studio.queue.stop_running()
    said = "stopping" if stop else "still running"
    print("\n".join(["closed", *(f"{said}: {command}" for command in running)]), file=sys.stderr)


@contextmanager
def shown(access: Access, own: Path) -> Iterator[None]:
    """Ask the browser for the page. Others can read its command line, so an address with a token is not put there.

    The browser is given a file that only this user can read and that leads to the address. The file is removed after
    `OPENING_S`, or at the end.

    Args:
        own: the studio's own folder.
    """
    if access.password is not None:
        show(access.address)
        yield
        return
    file = own / OPENING
    removal = Timer(OPENING_S, remove, [file])
    removal.daemon = True
    try:
        with suppress(OSError):  # then the browser finds no page, and the address on the terminal has to do
            write_private(file, opening_page(access.address))
        show(file.as_uri())
        removal.start()
        yield
    finally:
        removal.cancel()
        remove(file)


def opening_page(address: str) -> str:
    """A page that leads to an address at once."""
    from trilemma.studio.guard import short_page

    link = escape(address)
    return short_page(f'<p><a href="{link}">Open</a></p>', f'<meta http-equiv="refresh" content="0;url={link}">')


def write_private(path: Path, text: str) -> None:
    """Write a new file that only this user can read, in place of what has its name."""
    remove(path)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def show(address: str) -> None:
    """Ask the browser for a page; where there is none, the address on the terminal has to do."""
    import webbrowser

    windows = sys.platform in ("win32", "darwin") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if not windows or not webbrowser.open(address):
        print("no browser was opened; open the address above in one", file=sys.stderr)
