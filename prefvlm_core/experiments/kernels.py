"""The kernels that run notebooks in the batch."""

from typing import Any

from jupyter_client.manager import AsyncKernelManager


class BatchKernelManager(AsyncKernelManager):
    """Ends an idle kernel by asking it, without the interrupt that Jupyter sends first.

    On a busy machine the interrupt reaches the kernel while it closes its sockets: it then complains, or ZeroMQ aborts
    it with a message, although the notebook is complete. A kernel that does not answer is killed as ever.
    """

    async def _async_interrupt_kernel(self) -> None:
        """Send nothing."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        """Without a warning of ipykernel 6 that its debugger, which nobody uses here, may miss breakpoints."""
        environment = kw.pop("env") | {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        await super()._async_launch_kernel(kernel_cmd, env=environment, **kw)
