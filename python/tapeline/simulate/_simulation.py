"""What the simulations share: their account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tapeline._sending import Sending

if TYPE_CHECKING:
    from tapeline._sending import Native


class SendError(ConnectionError):
    """A destination took no more.

    Attributes:
        truth: The account so far; the last part of it may not have been sent.
    """

    def __init__(self, text: str, truth: dict[str, Any]) -> None:
        """Keep the account beside the text."""
        super().__init__(text)
        self.truth = truth

    def __reduce__(self) -> tuple[type[SendError], tuple[str, dict[str, Any]]]:
        """Pickle it with its account, as process pools do with every error."""
        return type(self), (str(self), self.truth)


class Simulation(Sending):
    """A simulation in the background; its kinds differ in their options and their account.

    As a context manager it waits for the end on leaving, or stops when an exception passes through.
    """

    def __init__(self, native: Native, senders: str) -> None:
        """Watch `native`; the entries of the account under `senders` have `url` and `error`."""
        super().__init__(native)
        self._senders = senders

    def _bytes_in(self, account: dict[str, Any]) -> int:
        return int(account["total"]["bytes_sent"])

    def truth(self) -> dict[str, Any]:
        """Wait for the end and return the account.

        Raises:
            ConnectionError: A destination failed; `truth` of the exception is the account so far.
        """
        truth = self._finish()
        failed = [sender for sender in truth[self._senders] if sender["error"] is not None]
        if failed:
            # many clients of one server fail alike
            texts = dict.fromkeys(f"{sender['url']}: {sender['error']}" for sender in failed)
            raise SendError("; ".join(texts), truth)
        return truth
