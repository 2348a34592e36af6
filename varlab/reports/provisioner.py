"""How jupyter_client starts a kernel that was forked already."""

from pathlib import Path
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from varlab.reports.forked import taken


class Forked(LocalProvisioner):
    """Launches the fork that waits, in place of a command."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        kernel = taken()
        assert kernel is not None
        arguments = [*cmd[cmd.index("ipykernel_launcher") :], "--IPKernelApp.parent_handle=0"]
        self.cwd = kwargs.get("cwd") or Path.cwd()
        kernel.launch(arguments, kwargs["env"], self.cwd)
        self.process = kernel  # type: ignore[assignment]
        self.pid = self.pgid = kernel.pid
        return self.connection_info
