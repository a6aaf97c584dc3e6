"""The message of a refused call."""

import pytest

from r2unet.errors import InputError


def refusal(call) -> str:
    """Return the message of the InputError that the call raises: one line."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
