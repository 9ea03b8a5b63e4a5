"""Messages as widespread firmware and software send them, with the base topic set to a device's.

The payloads are those of the programs' own documentation.
"""

import json
from typing import Any

import pytest

from paqett.readings.decode import Decoded, decode

SECOND = 1_000_000
DAY = 86_400 * SECOND
NOW = 1_750_000_000 * SECOND  # 2025-06-15T15:06:40Z


def send(path: str, payload: Any) -> Decoded:
    data = payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()
    return decode(
        data, received_us=NOW, oldest_us=NOW - 7 * DAY, newest_us=NOW + 600 * SECOND, path=path
    )


def metrics(decoded: Decoded) -> dict[str, Any]:
    """By name; all at the time of receipt."""
    assert {time_us for time_us, *_ in decoded.points} <= {NOW}
    return {metric: value for _, metric, value in decoded.points}


def refused(decoded: Decoded) -> dict[str | None, str]:
    return {one.metric: one.code for one in decoded.rejections}


class TestZigbee2mqtt:
    """`mqtt.base_topic: paqett/v1/{device}/telemetry`."""

    def test_a_sensors_state(self) -> None:
        decoded = send(
            "kitchen_sensor",
            '{"battery":97,"humidity":53.15,"linkquality":120,"temperature":21.38,'
            '"voltage":2995,"last_seen":"2025-06-15T15:06:39.123Z","update_available":null}',
        )
        assert decoded.rejections == []
        assert metrics(decoded) == {
            "kitchen_sensor.battery": 97.0,
            "kitchen_sensor.humidity": 53.15,
            "kitchen_sensor.linkquality": 120.0,
            "kitchen_sensor.temperature": 21.38,
            "kitchen_sensor.voltage": 2995.0,
            "kitchen_sensor.last_seen": "2025-06-15T15:06:39.123Z",
        }

    def test_a_lamps_state_with_its_nested_color(self) -> None:
        decoded = send(
            "living room/lamp",
            {
                "brightness": 254,
                "color": {"hue": 30, "saturation": 93, "x": 0.4575, "y": 0.4099},
                "color_mode": "color_temp",
                "color_temp": 370,
                "linkquality": 87,
                "power_on_behavior": "on",
                "state": "ON",
                "update": {"installed_version": 16_777_989, "latest_version": -1, "state": "idle"},
            },
        )
        assert decoded.rejections == []
        assert metrics(decoded) == {
            "living room.lamp.brightness": 254.0,
            "living room.lamp.color.hue": 30.0,
            "living room.lamp.color.saturation": 93.0,
            "living room.lamp.color.x": 0.4575,
            "living room.lamp.color.y": 0.4099,
            "living room.lamp.color_mode": "color_temp",
            "living room.lamp.color_temp": 370.0,
            "living room.lamp.linkquality": 87.0,
            "living room.lamp.power_on_behavior": True,
            "living room.lamp.state": True,
            "living room.lamp.update.installed_version": 16_777_989.0,
            "living room.lamp.update.latest_version": -1.0,
            "living room.lamp.update.state": "idle",
        }

    @pytest.mark.parametrize(
        ("path", "payload", "expected"),
        [
            ("lamp/availability", '{"state":"online"}', {"lamp.availability.state": "online"}),
            ("lamp/availability", "offline", {"lamp.availability": "offline"}),
            ("bridge/state", '{"state":"online"}', {"bridge.state.state": "online"}),
            ("0x00158d0001dc126a", '{"contact":false}', {"0x00158d0001dc126a.contact": False}),
            ("button", '{"action":"single"}', {"button.action": "single"}),
            ("button", '{"action":""}', {}),
        ],
    )
    def test_availability_and_events(self, path: str, payload: str, expected: dict) -> None:
        decoded = send(path, payload)
        assert (metrics(decoded), decoded.rejections) == (expected, [])

    def test_the_bridges_list_of_devices_is_one_bad_value(self) -> None:
        decoded = send("bridge/devices", [{"ieee_address": "0x00158d00018255df"}] * 40)
        assert (decoded.points, refused(decoded)) == ([], {"bridge.devices": "bad_value"})


class TestTasmota:
    """`FullTopic paqett/v1/{device}/telemetry/%prefix%/`."""

    def test_a_sensors_telemetry(self) -> None:
        decoded = send(
            "tele/SENSOR",
            '{"Time":"2025-06-15T15:06:28","AM2301":{"Temperature":24.6,"Humidity":58.2,'
            '"DewPoint":15.8},"DS18B20-1":{"Id":"01131B5D7A2C","Temperature":20.6},"TempUnit":"C"}',
        )
        assert decoded.rejections == []
        assert metrics(decoded) == {
            "tele.SENSOR.Time": "2025-06-15T15:06:28",  # without an offset: a text, not a ts
            "tele.SENSOR.AM2301.Temperature": 24.6,
            "tele.SENSOR.AM2301.Humidity": 58.2,
            "tele.SENSOR.AM2301.DewPoint": 15.8,
            "tele.SENSOR.DS18B20-1.Id": "01131B5D7A2C",
            "tele.SENSOR.DS18B20-1.Temperature": 20.6,
            "tele.SENSOR.TempUnit": "C",
        }

    def test_an_energy_meters_telemetry(self) -> None:
        decoded = send(
            "tele/SENSOR",
            '{"Time":"2025-06-15T15:06:28","ENERGY":{"TotalStartTime":"2018-11-23T15:33:47",'
            '"Total":0.017,"Yesterday":0.000,"Today":0.002,"Period":0,"Power":9,'
            '"ApparentPower":15,"ReactivePower":12,"Factor":0.61,"Voltage":234,"Current":0.065}}',
        )
        assert decoded.rejections == []
        assert metrics(decoded)["tele.SENSOR.ENERGY.Power"] == 9.0
        assert metrics(decoded)["tele.SENSOR.ENERGY.Factor"] == 0.61

    def test_the_state_of_a_lamp_loses_only_its_array(self) -> None:
        decoded = send(
            "tele/STATE",
            '{"Time":"2025-06-15T15:06:28","Uptime":"0T00:15:10","UptimeSec":910,"Heap":25,'
            '"SleepMode":"Dynamic","Sleep":50,"LoadAvg":19,"MqttCount":1,"POWER":"ON","Dimmer":40,'
            '"Color":"0,0,102","HSBColor":"240,100,40","Channel":[0,0,40],"Scheme":0,'
            '"Wifi":{"AP":1,"SSId":"home","BSSId":"A0:F3:C1:00:00:01","Channel":6,"Mode":"11n",'
            '"RSSI":84,"Signal":-58,"LinkCount":1,"Downtime":"0T00:00:03"}}',
        )
        assert refused(decoded) == {"tele.STATE.Channel": "bad_value"}
        found = metrics(decoded)
        assert found["tele.STATE.POWER"] is True
        assert found["tele.STATE.UptimeSec"] == 910.0
        assert found["tele.STATE.Color"] == "0,0,102"
        assert found["tele.STATE.Wifi.Signal"] == -58.0
        assert len(found) == 22

    @pytest.mark.parametrize(
        ("path", "payload", "expected"),
        [
            ("tele/LWT", "Online", {"tele.LWT": "Online"}),
            ("stat/POWER", "OFF", {"stat.POWER": False}),
            ("stat/RESULT", '{"POWER":"ON"}', {"stat.RESULT.POWER": True}),
            ("stat/RESULT", '{"Command":"Unknown"}', {}),
        ],
    )
    def test_short_messages(self, path: str, payload: str, expected: dict) -> None:
        decoded = send(path, payload)
        assert (metrics(decoded), decoded.rejections) == (expected, [])


class TestEsphome:
    """`mqtt: topic_prefix: paqett/v1/{device}/telemetry`."""

    @pytest.mark.parametrize(
        ("path", "payload", "value"),
        [
            ("sensor/living_room_temperature/state", "21.5", 21.5),
            ("sensor/uptime/state", "0001234", 1234.0),
            ("sensor/wifi_signal/state", "-61", -61.0),
            ("binary_sensor/door/state", "ON", True),
            ("binary_sensor/door/state", "OFF", False),
            ("switch/relay/state", "ON", True),
            ("text_sensor/version/state", "2025.5.0", "2025.5.0"),
            ("text_sensor/ip_address/state", "192.168.1.17", "192.168.1.17"),
            ("cover/garage/position/state", "100", 100.0),
            ("status", "online", "online"),
        ],
    )
    def test_a_bare_state(self, path: str, payload: str, value: Any) -> None:
        decoded = send(path, payload)
        assert decoded.rejections == []
        assert metrics(decoded) == {path.replace("/", "."): value}

    def test_a_sensor_without_a_reading_sends_nan_which_is_no_value(self) -> None:
        assert send("sensor/t/state", "nan") == Decoded([], [], 1)

    def test_a_lights_state(self) -> None:
        decoded = send(
            "light/desk/state",
            '{"color_mode":"rgb","state":"ON","brightness":255,"color":{"r":255,"g":128,"b":0}}',
        )
        assert decoded.rejections == []
        assert metrics(decoded)["light.desk.state.state"] is True
        assert metrics(decoded)["light.desk.state.color.g"] == 128.0

    def test_the_log_with_its_colors_is_text(self) -> None:
        line = "\x1b[0;36m[D][sensor:093]: 'Temperature': Sending state 21.50000 °C\x1b[0m"
        assert metrics(send("debug", line)) == {"debug": line}


class TestHomeAssistantStatestream:
    """`mqtt_statestream: base_topic: paqett/v1/{device}/telemetry`, with attributes and times."""

    @pytest.mark.parametrize(
        ("path", "payload", "expected"),
        [
            ("sensor/outside/state", "7.9", 7.9),
            ("light/master_bedroom_dimmer/state", "on", True),
            ("binary_sensor/door/state", "off", False),
            ("device_tracker/phone/state", "not_home", "not_home"),
            ("sensor/outside/state", "unavailable", None),
            ("sensor/outside/state", "unknown", None),
            ("sensor/outside/unit_of_measurement", '"°C"', "°C"),
            ("light/master_bedroom_dimmer/brightness", "180", 180.0),
            ("light/master_bedroom_dimmer/brightness", "null", None),
            ("light/master_bedroom_dimmer/friendly_name", '"Master Bedroom"', "Master Bedroom"),
            ("switch/pump/assumed_state", "true", True),
            (
                "sensor/outside/last_updated",
                "2025-06-15T15:06:39.123456+00:00",
                "2025-06-15T15:06:39.123456+00:00",
            ),
        ],
    )
    def test_states_and_attributes(self, path: str, payload: str, expected: Any) -> None:
        decoded = send(path, payload)
        assert decoded.rejections == []
        name = path.replace("/", ".")
        assert metrics(decoded) == ({} if expected is None else {name: expected})

    def test_an_attribute_that_is_a_list_is_one_bad_value(self) -> None:
        decoded = send("light/lamp/supported_color_modes", '["color_temp", "hs"]')
        assert refused(decoded) == {"light.lamp.supported_color_modes": "bad_value"}


class TestShelly:
    @pytest.mark.parametrize(
        ("path", "payload", "value"),
        [
            ("relay/0", "on", True),
            ("relay/0/power", "0.00", 0.0),
            ("relay/0/energy", "1247", 1247.0),
            ("sensor/temperature", "21.62", 21.62),
            ("temperature_f", "126.10", 126.1),
            ("overtemperature", "0", 0.0),
            ("input/0", "1", 1.0),
            ("online", "true", True),
            ("ext_temperatures/0", "19.5", 19.5),
        ],
    )
    def test_the_first_generations_bare_numbers(
        self, path: str, payload: str, value: float | bool
    ) -> None:
        decoded = send(path, payload)
        assert decoded.rejections == []
        assert metrics(decoded) == {path.replace("/", "."): value}

    def test_the_second_generations_notify_status(self) -> None:
        decoded = send(
            "events/rpc",
            {
                "src": "shellypro4pm-f008d1d8b8b8",
                "dst": "shellypro4pm-f008d1d8b8b8/events",
                "method": "NotifyStatus",
                "params": {
                    "ts": 1631186545.04,
                    "switch:0": {
                        "id": 0,
                        "aenergy": {
                            "by_minute": [45.199, 47.141, 88.397],
                            "minute_ts": 1626935779,
                            "total": 6.532,
                        },
                        "apower": 8.9,
                        "output": True,
                        "source": "button",
                        "temperature": {"tC": 52.3, "tF": 126.1},
                    },
                },
            },
        )
        assert refused(decoded) == {"events.rpc.params.switch:0.aenergy.by_minute": "bad_value"}
        found = metrics(decoded)
        assert found["events.rpc.method"] == "NotifyStatus"
        assert found["events.rpc.params.switch:0.apower"] == 8.9
        assert found["events.rpc.params.switch:0.output"] is True
        assert found["events.rpc.params.switch:0.aenergy.total"] == 6.532
        assert found["events.rpc.params.switch:0.temperature.tC"] == 52.3
        assert found["events.rpc.params.ts"] == 1631186545.04  # theirs, inside: an ordinary metric

    def test_the_second_generations_component_status(self) -> None:
        decoded = send(
            "status/temperature:100", {"id": 100, "tC": None, "tF": None, "errors": ["read"]}
        )
        assert metrics(decoded) == {"status.temperature:100.id": 100.0}
        assert refused(decoded) == {"status.temperature:100.errors": "bad_value"}


TELEGRAF_METRIC = {
    "fields": {"field_1": 30, "field_2": 4, "field_N": 59, "n_images": 660},
    "name": "docker",
    "tags": {"host": "raynor"},
    "timestamp": 1458229140,
}


class TestTelegraf:
    """`outputs.mqtt` with `data_format = "json"`."""

    @pytest.mark.parametrize(("path", "prefix"), [("raynor/docker", "raynor.docker."), ("", "")])
    def test_a_metric(self, path: str, prefix: str) -> None:
        decoded = send(path, TELEGRAF_METRIC)
        assert decoded.rejections == []
        assert metrics(decoded) == {
            f"{prefix}fields.field_1": 30.0,
            f"{prefix}fields.field_2": 4.0,
            f"{prefix}fields.field_N": 59.0,
            f"{prefix}fields.n_images": 660.0,
            f"{prefix}name": "docker",
            f"{prefix}tags.host": "raynor",
            f"{prefix}timestamp": 1458229140.0,
        }

    def test_a_batch_is_one_bad_value_that_names_it(self) -> None:
        decoded = send("", {"metrics": [TELEGRAF_METRIC, TELEGRAF_METRIC]})
        assert (decoded.points, refused(decoded)) == ([], {"metrics": "bad_value"})

    def test_its_template_may_say_ts(self) -> None:
        """`json_transformation` with `{"ts": timestamp, "values": fields}`."""
        decoded = send("", {"ts": NOW // SECOND - 5, "values": TELEGRAF_METRIC["fields"]})
        assert {time_us for time_us, *_ in decoded.points} == {NOW - 5 * SECOND}
        assert decoded.stamped == 4


@pytest.mark.parametrize("path", ["", "greenhouse/north"])
@pytest.mark.parametrize(
    ("ts", "time_us"),
    [
        (1749999999.123456, 1_749_999_999_123_456),  # Python's time.time()
        (1749999999, 1_749_999_999_000_000),  # C's time(NULL)
        (1749999999123, 1_749_999_999_123_000),  # JavaScript's Date.now()
        ("1749999999.5", 1_749_999_999_500_000),  # a shell's date +%s.%N, cut
        (1749999999123456789, 1_749_999_999_123_456),  # Python's time.time_ns(), InfluxDB
        ("2025-06-15T17:06:39.123456+02:00", 1_749_999_999_123_456),
        ("2025-06-15T15:06:39.123Z", 1_749_999_999_123_000),  # toISOString()
    ],
)
def test_a_clock_as_the_common_languages_write_it(path: str, ts: Any, time_us: int) -> None:
    decoded = send(path, {"ts": ts, "soil": {"moisture": 31.5}, "pump": False})
    prefix = f"{path.replace('/', '.')}." if path else ""
    assert decoded.points == [
        (time_us, f"{prefix}soil.moisture", 31.5),
        (time_us, f"{prefix}pump", False),
    ]
    assert (decoded.stamped, decoded.rejections) == (2, [])
