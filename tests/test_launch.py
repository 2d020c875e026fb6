"""The files in launch/ are well-formed and name keys that exist."""

import subprocess

import yaml

from hrm.training.config import load_pretrain_config
from tests.conftest import ROOT


def test_slurm_script_parses():
    script = ROOT / "launch" / "slurm.sbatch"
    result = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "resume=auto" in script.read_text()


def test_kubernetes_job():
    job = yaml.safe_load((ROOT / "launch" / "pytorchjob.yaml").read_text())
    assert job["kind"] == "PyTorchJob"
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    elastic = job["spec"]["elasticPolicy"]
    (container,) = worker["template"]["spec"]["containers"]
    assert elastic["nProcPerNode"] == container["resources"]["limits"]["nvidia.com/gpu"]
    assert elastic["minReplicas"] <= worker["replicas"] <= elastic["maxReplicas"]
    volumes = {volume["name"] for volume in worker["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes

    torchrun, script, *overrides = container["command"]
    assert (torchrun, script) == ("torchrun", "pretrain.py")
    config = load_pretrain_config(overrides)
    assert config.resume == "auto"
    for nodes in range(elastic["minReplicas"], elastic["maxReplicas"] + 1):
        config.local_micro_batch_size(nodes * elastic["nProcPerNode"])
