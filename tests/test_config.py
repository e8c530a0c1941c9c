import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

from runner.config import config_from, json_schema, load_config
from runner.errors import UsageError
from runner.prompts import read_prompts
from runner.protocols import presets
from runner.settings import RunConfig
from runner.yamlfile import assigned, merged

LEAST = "endpoints: [http://127.0.0.1:10006]\nprompts: prompts.txt\n"


@pytest.fixture
def written(tmp_path: Path) -> object:
    def write(text: str) -> Path:
        (tmp_path / "run.yaml").write_text(text)
        return tmp_path / "run.yaml"

    return write


def problems(path: Path, **options: object) -> list[str]:
    with pytest.raises(UsageError) as refused:
        load_config(path, **options)
    return [problem.replace(f"{path}: ", "").replace(f"{path}:", "") for problem in refused.value.problems]


def test_only_endpoints_and_prompts_are_required(written) -> None:
    config = load_config(written(LEAST))
    assert config.settings.seed == 42
    assert config.settings.retry.attempts == 3
    assert config.output_folder == written(LEAST).parent / "results"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("endpoints: [{url: http://h:1, slots: 0}]", "endpoints[0].slots: expected an integer ≥ 1 and ≤ 1024, got 0"),
        ("endpoints: [http://h:1, {url: http://h:2, slots: x}]", "endpoints[1].slots: expected an integer ≥ 1 and ≤ 1024, got 'x'"),
        ("endpoints: []", "endpoints: expected a list with at least one entry, got []"),
        ("endpoints: [{slots: 1}]", "endpoints[0].url: required, but missing"),
        ("endpoints: [{url: http://h:1, slot: 1}]", "endpoints[0].slot: unknown key; did you mean 'slots'?"),
        ("endpoints: [ftp://h:1]", "endpoints[0].url: expected an http or https URL such as http://127.0.0.1:10006, got 'ftp://h:1'"),
        ("endpoints: ['http://[x?y']", "endpoints[0].url: expected an http or https URL such as http://127.0.0.1:10006, got 'http://[x'"),
        ("endpoints: [http://h:99999]", "endpoints[0].url: expected an http or https URL such as http://127.0.0.1:10006, got 'http://h:99999'"),
        ("endpoints: ['http://h:1/?a=b']", "endpoints[0].url: expected a base URL without ? and #, got 'http://h:1/?a=b'"),
        ("endpoints: [http://h:1, http://h:1/]", "endpoints[1].url: http://h:1 stands already at endpoints[0]; for two generations at a time give that one `slots: 2`"),
        ("endpoints: [{url: http://h:1, name: a}, {url: http://h:2, name: a}]", "endpoints[1].name: 'a' is already the name of endpoints[0]"),
        ("endpoints: [{url: http://h:1, headers: {'X Y': a}}]", "endpoints[0].headers: 'X Y' is no valid header (RFC 9110)"),
        ('endpoints: [{url: http://h:1, headers: {X: "a\\r\\nEvil: 1"}}]', "endpoints[0].headers: 'X' is no valid header (RFC 9110)"),
        ("endpoints: [{url: http://h:1, verify: no.pem}]", "endpoints[0].verify: expected true, false or a file of certificates, got 'FOLDER/no.pem'"),
        ("endpoints: [{url: http://h:1, verify: 1}]", "endpoints[0].verify: expected true, false or a file of certificates, got 1"),
        ("endpoints: [{url: http://h:1, verify: null}]", "endpoints[0].verify: expected true, false or a file of certificates, got None"),
        ("endpoints: [{url: http://h:1, slots: 5000}]", "endpoints[0].slots: expected an integer ≥ 1 and ≤ 1024, got 5000"),
        ("endpoints: ['http://..']", "endpoints[0].url: expected an http or https URL such as http://127.0.0.1:10006, got 'http://..'"),
        ("timeouts: {total_s: 1.0e+300}", "timeouts.total_s: expected at most 31536000 (a year), got 1e+300"),
        ("endpoints: ['http://*:1']", "endpoints[0].url: expected an http or https URL such as http://127.0.0.1:10006, got 'http://*:1'"),
        ("endpoints: [{url: http://h:1, headers: {X: '日本'}}]", "endpoints[0].headers: 'X' is no valid header (RFC 9110)"),
        ("endpoints: [{url: http://h:1, headers: {X: ' a'}}]", "endpoints[0].headers: 'X' is no valid header (RFC 9110)"),
        ("timeouts: {connect_s: .inf}", "timeouts.connect_s: expected a number > 0, got Infinity"),
        ("sed: 1", "sed: unknown key; did you mean 'seed'?"),
        ("seed: x", "seed: expected an integer, got 'x'"),
        ("seed: yes", "seed: expected a number, got true"),
        ("retry: {attempts: 0}", "retry.attempts: expected an integer ≥ 1, got 0"),
        ("retry: [1]", "retry: expected a mapping, got [1]"),
        ("timeouts: {connect_s: 0}", "timeouts.connect_s: expected a number > 0, got 0"),
        ("timeouts: {conect_s: 1}", "timeouts.conect_s: unknown key; did you mean 'connect_s'?"),
        ("output: {keys: names}", "output.keys: expected 'name' or 'index-name', got 'names'"),
        ("output: {extension: .PLY}", "output.extension: expected auto or a file extension such as ply, got '.PLY'"),
        ("failover: maybe", "failover: expected true or false, got 'maybe'"),
        ("protocol: tripo", "protocol: expected a preset's name or a mapping, got 'tripo'; did you mean 'tripo3d'?"),
        ("output_folder: [a]", 'output_folder: expected a text, got ["a"]'),
        ("prompts: 5", "prompts: expected a list with at least one entry, got 5"),
        ("processes: 0", "processes: expected an integer from 1 to 256, or auto, got 0"),
        ("processes: true", "processes: expected an integer from 1 to 256, or auto, got true"),
        ("processes: 'auto '", 'processes: expected an integer from 1 to 256, or auto, got "auto "'),
        ("processes: 2.5", "processes: expected an integer from 1 to 256, or auto, got 2.5"),
        ("max_runtime_s: -1", "max_runtime_s: expected a number > 0, got -1"),
    ],
)  # fmt: skip
def test_a_problem_is_said_with_its_place_what_was_expected_and_what_was_found(written, text: str, said: str) -> None:
    base = yaml.safe_load(LEAST) | yaml.safe_load(text)
    path = written(yaml.safe_dump(base))
    assert problems(path) == [said.replace("FOLDER", str(path.parent))]


def test_all_problems_are_said_at_once(written) -> None:
    text = "endpoints: [http://h:1, {url: http://h:2, slots: 0}]\nseeed: 1\nretry: {attempts: -1}\n"
    assert len(problems(written(text))) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("endpoints: [http://h:1\nprompts: a\n", "2: not valid YAML"),
        (LEAST + "seed: 1\nseed: 2\n", "4: not valid YAML: the key 'seed' stands twice"),
        ("", "expected a mapping with endpoints and prompts, got an empty file"),
        ("- a\n", "expected a mapping with endpoints and prompts, got a list"),
        (LEAST + "seed: !!python/object/apply:os.getcwd []\n", "3: not valid YAML"),
        ("a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ), "the config has more than"),
        ("#" * 2_000_000, "expected a config of at most"),
    ],
)  # fmt: skip
def test_what_is_no_config_is_one_clear_sentence(written, text: str, said: str) -> None:
    (problem,) = problems(written(text))
    assert problem.startswith(said) or said in problem


def test_a_file_that_is_not_there_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.yaml: can't be read: No such file or directory"):
        load_config(tmp_path / "no.yaml")


def test_environment_variables_are_filled_in_and_unset_ones_named_without_a_value(written) -> None:
    text = LEAST.replace("[http://127.0.0.1:10006]", '[{url: "http://${HOST}:1", headers: {A: "$${x} ${TOKEN}"}}]')
    config = load_config(written(text), environ={"HOST": "gpu", "TOKEN": "hunter2hunter2"})
    assert config.endpoints[0].url == "http://gpu:1"
    assert config.endpoints[0].headers == {"A": "${x} hunter2hunter2"}
    said = problems(written(text), environ={"HOST": "gpu"})
    assert said == ["endpoints[0].headers.A: the environment variable TOKEN is not set"]


def test_the_resolved_config_has_every_default_absolute_paths_and_no_secret(written) -> None:
    text = (
        "endpoints:\n"
        "  - https://me:passw0rd@h:2\n"
        '  - {url: "https://h:1", headers: {Authorization: "Bearer ${TOKEN}", X-Api-Key: abcdefgh, X-Data: "${DATA}", Accept: a/b}}\n'
        "prompts: [prompts.txt]\n"
    )
    path = written(text)
    resolved = load_config(path, environ={"TOKEN": "hunter2hunter2", "DATA": "a: # b"}).resolved_yaml()
    for secret in ("hunter2", "passw0rd", "abcdefgh", "a: # b"):
        assert secret not in resolved
    document = yaml.safe_load(resolved)
    assert document["endpoints"][0]["url"] == "https://h:2"
    assert document["endpoints"][1]["headers"] == {
        "Authorization": "Bearer ${TOKEN}",
        "X-Api-Key": "***",
        "X-Data": "${DATA}",
        "Accept": "a/b",
    }
    assert document["prompts"] == [str(path.parent / "prompts.txt")]
    assert document["output_folder"] == str(path.parent / "results")
    assert set(document) == set(RunConfig.model_fields)


def test_flags_win_over_the_file_and_are_relative_to_the_current_folder(written, here: Path) -> None:
    path = written(LEAST + "retry: {attempts: 5, backoff_s: 2}\noutput_folder: out\n")
    (here / "elsewhere").mkdir()
    overrides = {"prompts": ["mine.txt"], "output_folder": "mine", "retry": {"attempts": 9}}
    config = load_config(path, overrides)
    assert config.base == Path.cwd()
    assert config.output_folder == here / "mine"
    assert (config.settings.retry.attempts, config.settings.retry.backoff_s) == (9, 2)


def test_a_problem_in_a_flag_is_not_laid_at_the_files_door(written) -> None:
    with pytest.raises(UsageError, match="the command line: seed: expected an integer, got 'x'"):
        load_config(written(LEAST), {"seed": "x"})


def test_endpoints_are_labelled_by_port_and_by_host_where_ports_repeat() -> None:
    config = config_from({"endpoints": ["http://a:1", "http://b:1", "https://c/", "http://d:2/x/"], "prompts": ["p"]})
    assert [endpoint.label for endpoint in config.endpoints] == ["a:1", "b:1", "port 443", "port 2"]
    assert [endpoint.name for endpoint in config.endpoints] == ["a:1", "b:1", "c:443", "d:2"]
    assert config.endpoints[3].url == "http://d:2/x"


@pytest.mark.parametrize("assignment", ["retry.attempts", "=5", "a=[", ""])
def test_an_assignment_that_is_none_is_refused(assignment: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        assigned(assignment)


def test_assignments_are_merged_deep() -> None:
    first, second = assigned("retry.attempts=5"), assigned("retry.backoff_s=0.5")
    assert merged(first, second) == {"retry": {"attempts": 5, "backoff_s": 0.5}}


def test_the_starter_config_is_the_defaults_written_out() -> None:
    starter = yaml.safe_load((REPOSITORY / "runner/cli/starter.yaml").read_text())
    given = RunConfig.model_validate(starter)
    default = RunConfig(endpoints=given.endpoints, prompts=given.prompts)
    assert given == default
    assert set(RunConfig.model_fields) == set(starter)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_sample_config_is_valid_and_has_its_prompts(path: Path) -> None:
    config = load_config(path)
    assert len(read_prompts(config.settings.prompts, base=config.base)) == 12


def test_the_schema_knows_every_option_and_describes_it() -> None:
    schema = json.loads(json_schema())
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    for section in (
        "Retry",
        "Timeouts",
        "Health",
        "Output",
        "EndpointSettings",
        "Basic",
        "MetricsSettings",
        "Notify",
    ):
        for name, option in schema["$defs"][section]["properties"].items():
            assert option["description"], name


def accepted(value: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> bool:
    """Judge by as much of JSON schema as ours uses."""
    if "$ref" in schema:
        return accepted(value, definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema and not any(accepted(value, one, definitions) for one in schema["anyOf"]):
        return False
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if "required" in schema and not (isinstance(value, dict) and {*schema["required"]} <= {*value}):
        return False
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind and not isinstance(value, kinds[kind]):
        return False
    if kind == "array" and len(value) < schema.get("minItems", 0):
        return False
    if kind == "array":
        return all(accepted(one, schema.get("items", {}), definitions) for one in value)
    if kind == "object":
        known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        rest = {} if more is True else more
        return (
            not {*schema.get("required", [])} - {*value}
            and all(key in known or rest is not False for key in value)
            and all(accepted(one, known.get(key, rest), definitions) for key, one in value.items())
        )
    return True


def documented() -> Iterator[dict[str, Any]]:
    for page in ("README.md", "docs/config.md", "docs/servers.md"):
        for block in re.findall(r"```yaml\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL):
            yield yaml.safe_load(block)
    for file in [*(REPOSITORY / "configs").glob("*.yaml"), REPOSITORY / "runner" / "cli" / "starter.yaml"]:
        yield yaml.safe_load(file.read_text())
    for name in presets.names():
        yield {"protocol": yaml.safe_load(presets.text(name))}
    yield {"protocol": {"preset": "runpod", "poll": {"method": "POST"}}}
    yield {"output": {"verify": "jpeg"}}


def test_the_schema_accepts_every_documented_config_preset_and_override() -> None:
    schema = json.loads(json_schema())
    least = {"endpoints": "http://h:1", "prompts": "p.txt"}
    refused = [one for one in documented() if not accepted(least | one, schema, schema["$defs"])]
    assert refused == []
    assert not accepted({"endpoints": "http://h:1"}, schema, schema["$defs"]), "neither prompts nor runs"
    for runs in ("lists/*.txt", [{"prompts": "a.txt", "output_folder": "a", "seed": 7}, "b.txt"]):
        assert accepted({"endpoints": "http://h:1", "runs": runs}, schema, schema["$defs"])
    for runs in ([{"endpoints": "http://h:1"}], [{"sead": 7}], [], 7):
        assert not accepted({"endpoints": "http://h:1", "runs": runs}, schema, schema["$defs"]), runs
    for wrong in ({"protocol": "nope"}, {"protocol": {"preset": "cog", "x": 1}}, {"output": {"verify": "gltf"}}):
        assert not accepted(least | wrong, schema, schema["$defs"])


def test_a_config_nested_without_end_is_one_clear_sentence(written) -> None:
    (problem,) = problems(written(LEAST + "headers: " + "[" * 5000 + "]" * 5000))
    assert "nested" in problem


def test_an_alias_that_holds_itself_is_one_clear_sentence(written) -> None:
    (problem,) = problems(written("endpoints: &a [*a]\nprompts: p.txt\n"))
    assert "does an alias hold itself" in problem


def test_a_file_that_holds_no_certificate_is_none(written) -> None:
    path = written("endpoints: [{url: https://h:1, verify: run.yaml}]\nprompts: p.txt\n")
    (problem,) = problems(path)
    assert problem.startswith("endpoints[0].verify: expected true, false or a file of certificates")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"endpoints": [{"url": "http://h:1", "verify": "a\0b"}]},
            "endpoints[0].verify: expected true, false or a file",
        ),
        ({"output_folder": "a\0b"}, "output_folder: expected a path, got 'a\\x00b'"),
        ({"seed": assigned("seed={a: &x [*x]}")["seed"]}, "seed: expected an integer, got {'a': [[...]]}"),
    ],
)
def test_what_no_file_system_takes_is_one_clear_sentence(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        config_from({"endpoints": ["http://h:1"], "prompts": ["p.txt"]} | options)
    assert said in str(refused.value)


def test_a_list_at_a_url_is_no_path() -> None:
    config = config_from({"endpoints": ["http://h:1"], "prompts": ["https://u:pw@h/list.csv", "mine.txt"]})
    assert config.prompts == ["https://u:pw@h/list.csv", "mine.txt"]
    assert yaml.safe_load(config.resolved_yaml())["prompts"] == ["https://h/list.csv", str(Path.cwd() / "mine.txt")]
