#!/bin/busybox sh
# The guest's first process: runs what /checks says, line by line, and switches the machine off.

/bin/busybox mkdir -p /dev /proc /sys /tmp /run
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin HOME=/tmp CI=true KNOCKGATE=/usr/bin/knockgate KNOCKGATE_GUEST=yes

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
for module in /modules/*.ko; do
    insmod "$module" || echo "can't load $module"
done
ip link set lo up

check() {
    suite=$1
    shift
    # Some fixtures wait for a flow to be forgotten, after 30 s, and the kernel knows no time before it was booted.
    while [ "$suite" = fixtures ] && read -r up _ </proc/uptime && [ "${up%.*}" -lt 35 ]; do sleep 1; done
    echo "== $suite begins"
    "/suites/$suite" "$@"
    echo
    echo "== $suite ends"
}

. /checks
poweroff -f
