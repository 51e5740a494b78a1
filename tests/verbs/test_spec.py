"""`rootless spec`: its config.json runs without a warning."""

from __future__ import annotations

import json

import pytest

from tests.lib.bundles import make_bundle, own


@pytest.mark.parametrize("flags", [[], ["--rootless"]], ids=["for root", "--rootless"])
def test_new_spec_runs_without_a_warning(user, rootless_command, flags):
    bundle = make_bundle(user)
    (bundle / "config.json").unlink()
    user.run([rootless_command, "spec", *flags], cwd=bundle, check=True)
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    assert "ambient" not in config["process"]["capabilities"]  # as runc 1.2
    config["process"] |= {"terminal": False, "args": ["grep", "^Cap", "/proc/self/status"]}
    path.write_text(json.dumps(config))
    own(user, bundle)
    log = user.tmp / "log"
    done = user.run([rootless_command, "--log", log, "--log-format", "json", "run", "--bundle", bundle, "c"])
    assert (done.returncode, done.stderr) == (0, "")
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    assert [record for record in records if record["level"] == "warning"] == []
    assert [record["msg"] for record in records if "ambient" in record["msg"]] == []
    wanted = 1 << 29 | 1 << 5 | 1 << 10  # CAP_AUDIT_WRITE, CAP_KILL, CAP_NET_BIND_SERVICE
    sets = dict(line.split(":\t") for line in done.stdout.splitlines())
    assert [int(sets[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")] == [wanted, wanted, wanted, 0]
