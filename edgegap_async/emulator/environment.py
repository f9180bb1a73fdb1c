"""The environment of a game server: the ARBITRIUM_* variables, as in the cloud.

Variables of the platform win over those of the deploy, and those of the deploy over those of the
version.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import attrs

from edgegap_async.api.codec import dumps
from edgegap_async.errors import InvalidRequest

if TYPE_CHECKING:
    from .deployments import LocalDeployment

MARK: Final = "ARBITRIUM_DELETE_TOKEN"
"""The variable whose value is unguessable and different for each deployment."""
PUBLIC_IP: Final = "127.0.0.1"
"""The address of every deployment."""
_PORT_FACTS: Final = ("internal", "external", "protocol")


_RUNS_OTHER_CODE: Final = re.compile(
    """
    # the dynamic loader, the C library, shells
    (LD_|DYLD_|BASH_FUNC_).* | GLIBC_TUNABLES | GCONV_PATH | LOCPATH | NLSPATH
    | PATH | BASH_ENV | ENV | IFS | PS4 | SHELLOPTS | BASHOPTS
    # interpreters and virtual machines
    | PYTHON(PATH|HOME|STARTUP|USERBASE|INSPECT|BREAKPOINT|WARNINGS|PLATLIBDIR|PYCACHEPREFIX)
    | PYTHONEXECUTABLE | NODE_(OPTIONS|PATH) | PERL(5LIB|LIB|5OPT|5DB) | RUBY(OPT|LIB)
    | GEM_(PATH|HOME) | (JAVA_TOOL|JDK_JAVA|_JAVA)_OPTIONS | CLASSPATH | LUA_(INIT.*|PATH.*|CPATH.*)
    | (COR|CORECLR|MONO)_.* | DOTNET_(STARTUP_HOOKS|ADDITIONAL_DEPS|SHARED_STORE)
    | PHPRC | PHP_INI_SCAN_DIR
    """,
    re.VERBOSE,
)
"""Names of variables that make the loader or an interpreter run other code."""


def check_variables(names: Iterable[str]) -> None:
    """Checks the environment variables of a call of the API.

    Raises:
        InvalidRequest: one of them can make the program of the application run other code.
    """
    for name in map(_as_variable, names):
        if _RUNS_OTHER_CODE.fullmatch(name):
            raise InvalidRequest(
                f"The emulator refuses the environment variable {name} in calls: it can make a"
                " program on this machine run other code. Set it in `environment` of the"
                " application in the TOML file"
            )


def _as_variable(name: str) -> str:
    """Returns a name as the process sees it."""
    return re.sub("[^A-Za-z0-9_]", "_", name)


@attrs.frozen(kw_only=True)
class Secrets:
    """Values that only the process of one deployment gets; drawn anew for each."""

    access_point_id: int = attrs.field(factory=lambda: 100000 + secrets.randbelow(900000))
    """Part of its stop URL."""
    delete_token: str = attrs.field(factory=lambda: secrets.token_hex(16), repr=False)
    """Token of its stop URL."""
    context_token: str = attrs.field(factory=lambda: secrets.token_hex(16), repr=False)
    """Token of its context URL."""


def environment(deployment: LocalDeployment) -> dict[str, str]:
    """Returns the environment variables of the process of a deployment."""
    application, request = deployment.application, deployment.request
    request_id, base_url, ports = deployment.request_id, deployment.base_url, deployment.ports
    own, location = deployment.secrets, deployment.location
    declared = {
        **application.variables({name: port.internal or 0 for name, port in ports.items()}),
        **{variable.key: variable.value for variable in request.environment_variables},
    }
    place = ("city", "country", "continent", "administrative_division", "timezone")
    variables = {
        "REQUEST_ID": request_id,
        "PUBLIC_IP": PUBLIC_IP,
        "DELETE_URL": f"{base_url}/v1/self/stop/{request_id}/{own.access_point_id}",
        "DELETE_TOKEN": own.delete_token,
        "CONTEXT_URL": f"{base_url}/v1/context/{request_id}/{own.access_point_id}",
        "CONTEXT_TOKEN": own.context_token,
        "DEPLOYMENT_TAGS": ",".join(request.tags),
        "DEPLOYMENT_LOCATION": _json(
            {name: getattr(location, name) for name in (*place, "latitude", "longitude")}
        ),
        "PORTS_MAPPING": _json(
            {
                "ports": {
                    name: {key: getattr(port, key) for key in ("name", *_PORT_FACTS)}
                    for name, port in ports.items()
                }
            }
        ),
        "HOST_ID": deployment.host_id,
        "HOST_BASE_CLOCK_FREQUENCY": "2000",
        "DEPLOYMENT_VCPU_UNITS": str(deployment.cpu_units),
        "DEPLOYMENT_MEMORY_MB": str(deployment.memory_mb),
        "HOST_IN_PRIVATE_FLEET": "true" if deployment.fleet_name else "false",
        "PRIVATE_FLEET_ID": deployment.fleet_name or "PUBLIC_CLOUD",
        "HOST_BEACON_ENABLED": "false",
        "BEACON_ENABLED": "false",  # first-party programs set one name and read the other
        "HOST_BEACON_PUBLIC_IP": "",
        "HOST_BEACON_PORT_UDP_EXTERNAL": "0",
        "HOST_BEACON_PORT_TCP_EXTERNAL": "0",
    }
    for name, port in ports.items():
        prefix = f"PORT_{re.sub('[^A-Z0-9]', '_', name.upper())}"
        for fact in _PORT_FACTS:
            variables[f"{prefix}_{fact.upper()}"] = str(getattr(port, fact))
    return {
        **{_as_variable(key): value for key, value in declared.items()},
        **{f"ARBITRIUM_{name}": value for name, value in variables.items()},
    }


def _json(value: object) -> str:
    return dumps(value).decode()
