"""What can keep a sidecar from running."""


class SidecarError(Exception):
    """The sidecar cannot start or go on; the message says what is wrong and what to do. Show it and exit."""
