import pytest
from api_server import Server


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()
