"""What people paste: whole, in each language, with TLS and without."""

import pytest
import yaml

from paqett.snippets import SECRET, Place, snippets
from paqett.web.snippets import place
from support import with_url


@pytest.mark.parametrize("tls", [False, True])
def test_nothing_is_left_open_but_the_secret(tls: bool) -> None:
    made = snippets(Place("mqtt.example.org", 8883, tls, "https://example.org"), "dev1")
    assert [one.name for one in made] == [
        "mosquitto_pub", "curl", "python", "arduino", "micropython", "home_assistant", "agent",
    ]  # fmt: skip
    for one in made:
        assert "$" not in one.code
        assert SECRET in one.code
        assert "dev1" in one.code
        assert one.title
    code = {one.name: one.code for one in made}
    compile(code["python"], "python", "exec")
    compile(code["micropython"], "micropython", "exec")
    statestream = yaml.safe_load(code["home_assistant"])["mqtt_statestream"]
    assert statestream["base_topic"] == "paqett/v1/dev1/telemetry"
    assert code["arduino"].count("{") == code["arduino"].count("}")
    assert ("WiFiClientSecure" in code["arduino"]) is tls
    assert ("ssl=True" in code["micropython"]) is tls
    assert ("--tls-use-os-certs" in code["mosquitto_pub"]) is tls


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Place("127.0.0.1", 1883, False, "http://127.0.0.1:8080")),
        (
            {
                "PAQETT_PAQETT__PUBLIC_URL": "https://iot.example.org/",
                "PAQETT_BROKER__TLS_PORT": "8883",
            },
            Place("iot.example.org", 8883, True, "https://iot.example.org"),
        ),
        (
            {"PAQETT_BROKER__PUBLIC_HOST": "mqtt.example.org"},
            Place("mqtt.example.org", 1883, False, "http://127.0.0.1:8080"),
        ),
    ],
)
def test_devices_are_sent_to_where_the_settings_say(environ, expected) -> None:
    assert place(with_url("", **environ)) == expected
