#!/bin/sh
# The old root volume is lent to this machine: import the spool that is on it.
# Frames that came after the snapshot are there and nowhere else. The import
# merges by the natural key, so it may be done again.
set -eu
volume='@VOLUME@'
data='@DATA@'
dir=${SALVAGE_MOUNT:-/run/gt06ops-salvage}
serial=$(echo "$volume" | tr -d -)
part=
for disk in ${SALVAGE_DEVICE:-} "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$serial" /dev/sdf /dev/xvdf; do
  [ -b "$disk" ] || continue
  for p in "$disk-part1" "${disk}p1" "${disk}1" "$disk"; do
    [ -b "$p" ] && blkid -p "$p" 2>/dev/null | grep -q ' TYPE="\(ext4\|xfs\)"' && part=$p && break 2
  done
done
[ -n "$part" ] || { echo "$volume is not seen as a disk here" >&2; exit 1; }
mkdir -p "$dir"
# Not noload: after a crash the newest segments are known to the journal only.
mount -o ro "$part" "$dir" 2>/dev/null || mount -o ro,nouuid "$part" "$dir"
trap 'umount "$dir"' EXIT
[ -d "$dir$data" ] || { echo "$data is not on $volume" >&2; exit 1; }
gt06ctl spool import "$dir$data" --json
