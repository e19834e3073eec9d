import tomllib

from fedcpsc.launch.app_folder import CONFIG_IN_APP, stage_app


def test_the_app_holds_source_and_configuration_and_nothing_else(tmp_path):
    config = tmp_path / "my run.yaml"
    config.write_text("seed: 5\n")
    stage_app(tmp_path / "fedcpsc", config)
    files = [path.relative_to(tmp_path / "fedcpsc") for path in (tmp_path / "fedcpsc").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".py", ".toml", ".yaml"}
    assert (tmp_path / "fedcpsc" / CONFIG_IN_APP).read_text() == "seed: 5\n"
    components = tomllib.loads((tmp_path / "fedcpsc/pyproject.toml").read_text())["tool"]["flwr"]["app"]["components"]
    for reference in components.values():
        module = reference.partition(":")[0].replace(".", "/")
        assert (tmp_path / "fedcpsc" / f"{module}.py").exists()
