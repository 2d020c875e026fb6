"""The web page and its server; needs the extra `[web]`."""

from hrm.errors import UserError, install_command

try:
    from hrm.web.app import create_app
    from hrm.web.server import serve
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("fastapi", "starlette", "uvicorn"):
        raise
    raise UserError(
        f"the web page needs {error.name}; install it by: {install_command('web')}"
    ) from None

__all__ = ["create_app", "serve"]
