"""`ingot dashboard`: a local web page over runs that follows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import UInt16

from ingot.cli.app import app
from ingot.errors import Stopped


@app.command(usage="Usage: ingot dashboard [--runs DIR] [--host HOST] [--port PORT] [--public] [--open]")
def dashboard(
    *,
    runs: Annotated[Path, Parameter(help="folder of all runs")] = Path("runs"),
    host: Annotated[str, Parameter(help="address to listen on; beyond loopback only with --public")] = "127.0.0.1",
    port: Annotated[UInt16, Parameter(help="0: any that is free")] = 8001,
    public: Annotated[bool, Parameter(help="let others read all runs: there is no key and no encryption")] = False,
    open: Annotated[bool, Parameter(help="open it in this machine's browser")] = False,
) -> None:
    """Compare and follow runs in the browser: curves, samples, checkpoints, evaluations, sweeps. Ctrl-C stops."""
    from ingot.dashboard.server import Dashboard

    server = Dashboard(runs, host, port, public=public)
    with server.closing():
        server.library.begin()
        print(f"{runs} at {server.address}; Ctrl-C stops", flush=True)
        if open:
            import webbrowser

            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
            raise Stopped from None
