"""The few exceptions of the system, and who may catch each.

A bad *value* is never an exception: it is data with ``Quality.BAD``, masked and counted.
"""


class FusionError(Exception):
    """Base of every error whose message is meant for the user; the CLI prints it without a traceback."""

    exit_code = 1


class ConfigError(FusionError):
    """A configuration that cannot be accepted; the message names the key and what would be accepted."""

    exit_code = 2


class PlantMismatch(ConfigError):
    """A checkpoint or recording that belongs to another plant than the one configured."""


class CheckpointError(ConfigError):
    """A checkpoint that holds something else than this version writes; the message names it."""


class RecordingError(FusionError):
    """A recording that is missing, damaged or of another format version; the message names the file."""


class SourceError(FusionError):
    """A source that was lost or cannot be reached; only the source supervisor catches it and backs off."""


class SourceRefused(SourceError):
    """A peer that answered and said no (credentials, certificate, unknown tag): retried slowly, shown as REFUSED."""


class BrokerError(FusionError):
    """An MQTT broker that cannot be reached or was lost; whoever keeps a connection tries again."""


class BrokerRefused(BrokerError):
    """A broker that answered and does not let us in: retried slowly, shown as REFUSED."""


class ModelError(FusionError):
    """A model that is late or not finite; the advisor answers it with HOLD."""


class HistorianError(FusionError):
    """Files of a historian that cannot be imported; the message names the file and what was looked for."""
