"""docs/libvirt.md: its commands are run in order, by a libvirt of its own, for a domain without KVM.

The libvirt runs in new namespaces: it has its own /run and /etc/libvirt, and everything that it has started
ends with the first process there.  Its images and backups are in folders of the test.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interop import qemu
from tests.interop.disks import MIB, mixed
from tests.support.peers import BLKMIG, PATIENCE
from tests.support.qcow2 import same

PAGE = (Path(__file__).parents[2] / "docs" / "libvirt.md").read_text()
PROGRAMS = ("virsh", "libvirtd", "unshare", "mount")
#: Folders with a content of their own, and the settings of a libvirt that needs nothing else.
INSIDE = """
set -e
for folder in /run /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /etc/libvirt; do
    mount -t tmpfs tmpfs $folder
done
cat > /etc/libvirt/qemu.conf <<END
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "root"
namespaces = []
cgroup_controllers = []
END
echo 'auth_unix_rw = "none"' > /etc/libvirt/libvirtd.conf
libvirtd -d
blkmig() {{ {blkmig} "$@"; }}
virsh define {images}/guest.xml
virsh start guest
{commands}
virsh destroy guest
"""
DOMAIN = """
<domain type='qemu'>
  <name>guest</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{images}/vda.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""
#: What the guest writes between the two backups, and after the second one.
WRITE = """virsh qemu-monitor-command guest --hmp \
'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P {byte} {start} 300k"'
"""
_NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def missing() -> str | None:
    """Return why the page cannot be run here."""
    for name in PROGRAMS:
        if shutil.which(name) is None:
            return f"no {name}; install libvirt-daemon-system and libvirt-clients"
    if qemu.OWN is None or os.geteuid() != 0:
        return "libvirt is run as root, with the QEMU of the machine"
    if subprocess.run([*_NAMESPACES, "true"], check=False, capture_output=True).returncode:
        return "no new namespaces can be made here"
    return None


def files(page: str) -> dict[str, str]:
    """Return the files that the page shows, by name."""
    found = {}
    for text in re.finditer(r"```xml\n(.*?)```", page, re.DOTALL):
        found[re.findall(r"/backup/(\w+\.xml)`", page[: text.start()])[-1]] = text[1]
    return found


@pytest.mark.long
def test_the_commands(tmp_path: Path) -> None:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    images, backup = tmp_path / "images", tmp_path / "backup"
    images.mkdir()
    backup.mkdir()
    (images / "guest.xml").write_text(DOMAIN.format(images=images))
    raw = tmp_path / "disk.raw"
    raw.write_bytes(mixed(10 * MIB))
    qemu.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, images / "vda.qcow2")
    page = re.sub("/(images|backup)/", rf"{tmp_path}/\1/", PAGE)
    shown = files(page)
    assert set(shown) == {"full.xml", "c0.xml", "changes.xml", "c1.xml"}
    for name, text in shown.items():
        (backup / name).write_text(text)
    blocks = [
        re.sub(r"^\$ ", "", text, flags=re.MULTILINE)
        for text in re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    ]
    full, changes, back = blocks
    commands = "".join(
        [full, WRITE.format(byte=9, start="3M"), changes, WRITE.format(byte=8, start="6M"), back]
    )
    script = INSIDE.format(images=images, blkmig=" ".join(BLKMIG), commands=commands)
    done = subprocess.run(
        [*_NAMESPACES, "/bin/sh", "-c", script], stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    with raw.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"\x09" * (300 << 10))
    same(images / "vda.qcow2", "qcow2", raw)
    assert (backup / "s1.bin").stat().st_size < 2 * MIB
