"""What a machine or a person's shell may not change: every command calls `prepare` before it imports anything that
reads the environment.

Who starts a command has an environment made for other programs: of a notebook, of a supervisor, of another project. A
library reads it unasked, and the command ends in the library's traceback. So it is made plain once, here, and every
process that the command starts inherits the plain one.
"""

from __future__ import annotations

import codecs
import contextlib
import getpass
import importlib.util
import locale
import os
import stat
import sys
import tempfile
import urllib.request
import warnings
from pathlib import Path

PLAIN = "WM_PLAIN"
"""Environment variable that says to children that the settings were looked through: what came since is on purpose."""

KEPT = {
    "DASK_": (),
    "MLFLOW_": ("MLFLOW_TRACKING_", "MLFLOW_S3_", "MLFLOW_HTTP_REQUEST_", "MLFLOW_DISABLE_TELEMETRY"),
    "PREFECT_": (
        *(f"PREFECT_API_{name}" for name in ("URL", "KEY", "AUTH_STRING", "SSL_CERT_FILE", "TLS_", "REQUEST_TIMEOUT")),
        "PREFECT_CLIENT_",
        "PREFECT_LOGGING_LEVEL",
        "PREFECT_WORKER_",
        "PREFECT__",  # Prefect's own, for the processes that it starts
    ),
    # Each ends the import of a library that does not know the value.
    "OTEL_": (),
    "TORCH_LOGS": (),
    "TQDM_": (),
}
"""Families of settings, and how the names begin of those that stay: which server, who asks, how patiently. The others
say how such a server is run, where results go, or which run somebody else's program is a part of."""

EVERYWHERE = ("OTEL_", "TORCH_LOGS", "TQDM_")
"""Families that no command takes anything from."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TRACKER = "ignore:resource_tracker"
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def prepare(*families: str) -> None:
    """Makes this process's surroundings plain; as often as you like.

    Args:
        families: of KEPT, besides those of EVERYWHERE, whose other variables are taken away, with one line on stderr
            that names them.
    """
    _open_streams()
    _read_utf8()
    for name in ("MPLBACKEND", "MATPLOTLIBRC"):  # pictures have a style of their own
        os.environ.pop(name, None)
    os.environ["SDL_VIDEODRIVER"] = "dummy"  # whoever wants a window takes it away
    _calm_warnings()
    _plain_network()
    _name_and_home()
    _drop_settings({*EVERYWHERE, *families})


def _open_streams() -> None:
    """Closed standard streams lead to /dev/null: else the next file that is opened becomes one of them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode))


def _read_utf8() -> None:
    """Files are UTF-8 whatever the locale; what a terminal cannot show is written as an escape."""
    if codecs.lookup(locale.getpreferredencoding(False)).name != "utf-8":
        os.environ |= {"PYTHONUTF8": "1", "LC_CTYPE": "C.UTF-8"}
        os.environ.pop("LC_ALL", None)  # it would stand above LC_CTYPE
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _calm_warnings() -> None:
    """A library's old habits are not our mistakes; and of a command that was ended nobody need know that Python's own
    clearing up had something to do."""
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        del os.environ["PYTHONWARNINGS"]
        warnings.simplefilter("default")
    told = [rule for rule in os.environ.get("PYTHONWARNINGS", "").split(",") if rule and rule != TRACKER]
    os.environ["PYTHONWARNINGS"] = ",".join([*told, TRACKER])


def _plain_network() -> None:
    """This machine is never asked of a proxy; proxies and certificates that clients cannot use are taken away."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy") and name.lower() != "no_proxy"]:
        scheme, found, _ = os.environ[name].partition("://")
        if found and scheme.lower() not in ("http", "https") and importlib.util.find_spec("socksio") is None:
            del os.environ[name]
    if urllib.request.getproxies_environment():
        told = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        # As all clients understand them: httpx takes neither [::1] nor *.firm.example.
        hosts = [host.strip().strip("[]").removeprefix("*") or "*" for host in told.split(",") if host.strip()]
        hosts = ["*"] if "*" in hosts else [*dict.fromkeys([*hosts, *LOOPBACK])]
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)
    for name in CERTIFICATES:
        if name in os.environ and not os.path.exists(os.environ[name]):  # of an environment that is gone
            del os.environ[name]


def _name_and_home() -> None:
    """A user whom the system does not know has a name; caches have a folder that can be written to."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = os.environ["LOGNAME"] = str(os.getuid())
    home = os.path.expanduser("~")
    if os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK):
        return
    try:
        own = str(_private_folder())
    except OSError:  # nothing here can be written to: what only reads goes on, what writes says so
        return
    if home in ("~", "/") or not os.path.isdir(home) or not os.access(home, os.X_OK):
        os.environ["HOME"] = own
    else:  # what is configured there still counts
        for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR"):
            os.environ.setdefault(name, own)


def _private_folder() -> Path:
    """A folder of this user's for temporary things, the same for the next command if nobody else took its name."""
    folder = Path(tempfile.gettempdir(), f"world-models-{os.getuid()}")
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="world-models-"))


def _drop_settings(families: set[str]) -> None:
    """Takes away what other programs' settings say to the libraries that are used here."""
    if os.environ.get(PLAIN) == "1":
        return
    dropped = [
        name
        for name in sorted(os.environ)
        for family in families
        if name.startswith(family) and not name.startswith(KEPT[family]) and not _has_scheduler(family)
    ]
    for name in dropped:
        del os.environ[name]
    if dropped:
        print(f"note: these settings are not used here: {', '.join(dropped)}", file=sys.stderr)
    os.environ[PLAIN] = "1"


def _has_scheduler(family: str) -> bool:
    """A Dask scheduler of somebody's may ask for certificates, so Dask's settings stay where one is named."""
    return family == "DASK_" and bool(os.environ.get("WM_DASK"))
