"""The guards of conftest hold: the other tests lean on them."""

import socket
import sys
import threading

import pytest
import torch
from jaxtyping import TypeCheckError
from stand_ins import shape_checks
from torch import Tensor


def test_another_machine_is_out_of_reach(network_attempts):
    # 192.0.2.0/24 and .invalid are reserved: nothing is there, should the guard fail.
    for host in ("192.0.2.1", "example.invalid"):
        with pytest.raises(OSError, match="no network"):
            socket.create_connection((host, 80), timeout=1)
    with socket.socket() as sock, pytest.raises(OSError, match="no network"):
        sock.connect(("192.0.2.1", 80))
    assert len(network_attempts) == 3
    network_attempts.clear()  # or the guard fails this test, as it should


def test_this_machine_is_in_reach():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].close())
        thread.start()
        socket.create_connection(server.getsockname()).close()
        thread.join()


def test_random_numbers_are_the_same_in_every_test():
    expected = torch.randn(3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.randn(3), expected, rtol=0, atol=0)


def test_shapes_are_checked_at_run_time(tmp_path, monkeypatch):
    # A module of its own, under a name that the hook covers.
    code = (
        "from jaxtyping import Float\nfrom torch import Tensor\n\n"
        "def square(a: Float[Tensor, 'n n']) -> Float[Tensor, 'n n']:\n    return a\n\n"
        "class Squares:\n"
        "    def square(self, a: Float[Tensor, 'n n']) -> Tensor:\n        return a\n"
    )
    package = tmp_path / "shapes"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with shape_checks.install("shapes"):
        import shapes
    for square in (shapes.square, shapes.Squares().square):
        with pytest.raises(TypeCheckError):
            square(torch.zeros(2, 3))
        assert isinstance(square(torch.zeros(2, 2)), Tensor)
    sys.modules.pop("shapes")
