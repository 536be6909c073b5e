"""The documented configuration of nginx, in nginx, before two services."""

import getpass
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from tests.serve.test_soak import live

from diptych.client import Client

CONFIGURATION = Path(__file__).parents[2] / "docs" / "operate" / "nginx.conf"
NGINX, OPENSSL = shutil.which("nginx"), shutil.which("openssl")
pytestmark = pytest.mark.skipif(not (NGINX and OPENSSL), reason="needs nginx and openssl")
WHOLE = """
user {user}; daemon off; error_log stderr; pid {folder}/pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{site}
}}
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def proxy(tmp_path):
    """Starts nginx before two ports; returns its address."""
    running = []

    def start(ports):
        key, site, port = tmp_path / "diptych.key", CONFIGURATION.read_text(), free_port()
        about = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=diptych.example.org"]
        certificate = tmp_path / "diptych.pem"
        command = [OPENSSL, "req", *about, "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        # Ports and places are of this test; everything else is as it is documented.
        for number, own in zip(("8000", "8001"), ports, strict=True):
            assert f"127.0.0.1:{number}" in site
            site = site.replace(f"127.0.0.1:{number}", f"127.0.0.1:{own}")
        site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        site = site.replace("/etc/ssl/diptych.pem", str(certificate)).replace(
            "/etc/ssl/diptych.key", str(key)
        )
        place = tmp_path / "nginx.conf"
        place.write_text(WHOLE.format(user=getpass.getuser(), folder=tmp_path, site=site))
        subprocess.run([NGINX, "-t", "-e", "stderr", "-c", str(place)], check=True, capture_output=True)
        running.append(subprocess.Popen([NGINX, "-e", "stderr", "-c", str(place)], stderr=subprocess.DEVNULL))
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with socket.socket() as one:
                if not one.connect_ex(("127.0.0.1", port)):
                    return f"https://127.0.0.1:{port}"
            time.sleep(0.02)
        raise AssertionError("nginx does not listen")

    yield start
    for one in running:
        one.terminate()
        one.wait(20)


def test_nginx_sends_what_a_leaving_process_refuses_to_the_other(serve, proxy, models):
    one, two = serve("text"), serve("text")
    with live(one.web) as first, live(two.web) as second:
        url = proxy([address.rpartition(":")[2] for address in (first, second)])
        with httpx.Client(base_url=url, verify=False, trust_env=False, timeout=30) as client:
            codes = [client.post("/v1/score", json={"text": f"t {n}"}).status_code for n in range(6)]
            assert codes == [200] * 6
            assert min(len(ask.service.recent) for ask in (one, two)) > 0
            # One of them drains: all requests are answered by the other, and none by a 503.
            one.service.engine.draining = True
            before = len(two.service.recent)
            codes = [client.post("/v1/score", json={"text": f"u {n}"}).status_code for n in range(6)]
            assert codes == [200] * 6
            assert len(two.service.recent) == before + 6
            one.service.engine.draining = False
            assert client.get("/metrics").status_code == 403
            # The id is that of nginx, which its log may have, too.
            assert re.fullmatch(r"[0-9a-f]{32}", client.get("/livez").headers["x-request-id"])
            body = b"x" * 13_000_000
            refused = client.post("/v1/score", content=body, headers={"content-type": "application/json"})
            assert (refused.status_code, refused.json()["type"]) == (413, "/problems/too-large")
            assert client.post("/v1/jobs", content=body * 6).status_code == 413
    # The first refused something: nginx has tried it.
    assert one.service.metrics.requests.labels("/v1/score", "503")._value.get() >= 1


def test_the_client_names_an_answer_that_is_not_of_the_service(proxy):
    from diptych.client import ServiceError

    url = proxy([free_port(), free_port()])
    # Nothing listens behind it: nginx answers with a page.
    plain = httpx.get(url, verify=False, trust_env=False)
    assert plain.status_code == 502
    client = Client(url.replace("https", "http"), tries=1)
    with pytest.raises(ServiceError) as caught:
        client.score(text="a")
    assert (caught.value.status, caught.value.kind) == (400, "not-json")
    client.close()
