"""Why a server cannot be read, in words: told apart by whether it said no or was lost."""

from __future__ import annotations

import struct

from asyncua import ua
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from fusion.errors import SourceError, SourceRefused

FAILURES = (UaError, OSError, TimeoutError, ValueError, AssertionError, LookupError, EOFError, struct.error)
"""What the library raises where a server is gone, says no, or sends what is no OPC UA."""
REFUSALS = (
    "BadUserAccessDenied",
    "BadIdentityTokenRejected",
    "BadIdentityTokenInvalid",
    "BadUserSignatureInvalid",
    "BadApplicationSignatureInvalid",
    "BadSecurityChecksFailed",
    "BadSecurityModeRejected",
    "BadSecurityPolicyRejected",
)
HINTS = {
    "BadTooManySessions": "those of a client that was killed end after its session timeout; asked again until then",
    "BadSecurityChecksFailed": "let the server trust our certificate",
    "BadCertificateUntrusted": "let the server trust our certificate",
    "BadCertificateUriInvalid": "application_uri must equal the URI in our certificate",
    "BadCertificateTimeInvalid": "a certificate has expired or a clock is wrong",
}


def said(error: BaseException) -> str:
    """What an error says, and never nothing."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, UaError | OSError):
        return str(error) or type(error).__name__
    return f"the answer is no OPC UA ({type(error).__name__}{f': {error}' if str(error) else ''})"


def refusal_or_loss(error: BaseException) -> SourceError:
    """Whether a server's answer means no, for now, or nothing but a loss."""
    if isinstance(error, SourceError):
        return error
    if isinstance(error, AssertionError):  # how the library finds a fault in place of a channel
        return SourceRefused("the server refused the secure channel; let it trust our certificate")
    if not isinstance(error, UaStatusCodeError):
        said_no = isinstance(error, UaError) and ("endpoint" in str(error) or "certificate" in str(error).lower())
        return (SourceRefused if said_no else SourceError)(said(error))
    name = ua.StatusCode(error.code).name
    refused = name in REFUSALS or name.startswith("BadCertificate")
    hint = f" - {HINTS[name]}" if name in HINTS else ""
    return (SourceRefused if refused else SourceError)(f"{name}: {ua.StatusCode(error.code).doc}{hint}")
