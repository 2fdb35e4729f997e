#!/bin/bash
# Sends one authenticated knock, by bash, openssl 3 and xxd alone.
#
#     knock.sh KEY_FILE HOST
#
# KEY_FILE is what `knockgate key new` printed. Opens the first gate of the key for the address from which the packet arrives.
# The secrets are arguments of openssl for a moment, where other users of this machine can see them.
set -euo pipefail

field() { sed -nE "s/^$1 *= *\"?([0-9a-f]+)\"?.*/\1/p" "$file"; }

# Prints the MAC of the bytes that standard input has in hexadecimal digits.
mac() {
    local key=$1
    shift
    xxd -r -p | openssl mac -macopt "hexkey:$key" "$@" | tr A-F a-f
}

file=$1
host=$2
secret=$(printf '%s%s' "$(printf 'knockgate knock 1' | xxd -p)" "$(field host_id)" |
    mac "$(field root)" -digest SHA256 HMAC)
# Time, slot, version, flags (observed address), gate, action (open), zero, seconds, addresses, port and zeros.
body=$(printf '%016x%04x0104%08x0100%04x%08x%032x%016x' "$(date +%s%N)" "$(field slot)" 0 0 0 0 0)
tag=$(printf %s "$body" | mac "$secret" -digest SHA256 HMAC | cut -c1-32)
packet=$tag
for block in 0 1 2; do
    mask=$(printf '%s%02x00000000000000' "$tag" "$block" | mac "$(field host_secret)" -macopt size:16 SIPHASH)
    for digit in 0 8 16 24; do
        word=$((0x${body:block*32+digit:8} ^ 0x${mask:digit:8}))
        packet+=$(printf '%08x' "$word")
    done
done
printf %s "$packet" | xxd -r -p >"/dev/udp/$host/$(field port)"
